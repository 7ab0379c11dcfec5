//! `outlive reload`.

use serde::Serialize;

use super::args::ReloadArgs;
use super::error::Fail;
use super::{Ctx, code, saga};
use crate::client::Error;
use crate::core::ids::JobName;
use crate::wire::control::{ReloadReply, SagaState, SagaView};

pub(crate) async fn reload(args: &ReloadArgs, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    let asked = match args.or_rollback {
        true => ctx.client.reload_or_roll_back(args.within.unwrap_or(saga::WITHIN)).await,
        false => ctx.client.reload(args.plan).await,
    };
    let reply = match asked {
        Ok(reply) => reply,
        // A wrong configuration is answered with a 400 and one line for each mistake.
        Err(e @ Error::Refused { status: 400, .. }) => {
            for line in Fail::Client(e).lines() {
                ctx.out.note(&line);
            }
            return Err(Fail::Code(code::USAGE));
        }
        Err(e) => return Err(e.into()),
    };
    if args.json && reply.saga.is_none() {
        ctx.out.json(&reply)?;
    } else if !args.json {
        for line in render(&reply) {
            ctx.out.line(&line)?;
        }
        ctx.out.flush()?;
    }
    let Some(id) = reply.saga else { return Ok(code::OK) };
    let end = saga::wait(&ctx.client, id).await?;
    if args.json {
        ctx.out.json(&Both { reply, end: &end })?;
    } else if end.state == SagaState::Done {
        ctx.out.line("every job it adds or changes is up")?;
    }
    Ok(saga::say(&end, ctx))
}

/// With `--or-rollback --json`: what was to be done, and how it ended.
#[derive(Serialize)]
struct Both<'a> {
    #[serde(flatten)]
    reply: ReloadReply,
    end: &'a SagaView,
}

fn render(reply: &ReloadReply) -> Vec<String> {
    let (removed, restarted, updated) = if reply.applied {
        ("removed", "restarted", "updated without a restart")
    } else {
        ("would be removed", "would be restarted", "would be updated without a restart")
    };
    let kinds: [(&str, &str, &Vec<JobName>); 5] = [
        ("+", "new", &reply.added),
        ("-", removed, &reply.removed),
        ("~", restarted, &reply.restarted),
        ("=", updated, &reply.updated),
        ("!", "not taken over: a submitted job of that name is at work", &reply.blocked),
    ];
    let mut lines = Vec::new();
    for (mark, text, names) in kinds {
        lines.extend(names.iter().map(|name| format!("{mark} {name}: {text}")));
    }
    if lines.is_empty() {
        lines.push("nothing differs".to_owned());
    } else {
        let what = if reply.applied { "applied" } else { "planned only" };
        lines.push(format!("{what}; {} unchanged", reply.unchanged));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_differs_and_whether_it_was_done() {
        let name = |n: &str| vec![JobName::new(n).unwrap()];
        let mut reply = ReloadReply { added: name("a"), restarted: name("b"), ..ReloadReply::default() };
        reply.unchanged = 2;
        assert_eq!(render(&reply), ["+ a: new", "~ b: would be restarted", "planned only; 2 unchanged"]);
        assert_eq!(render(&ReloadReply::default()), ["nothing differs"]);
    }
}
