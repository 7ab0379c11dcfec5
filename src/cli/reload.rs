//! `outlive reload`.

use super::args::ReloadArgs;
use super::error::Fail;
use super::{Ctx, code};
use crate::client::Error;
use crate::core::ids::JobName;
use crate::wire::control::ReloadReply;

pub(crate) async fn reload(args: &ReloadArgs, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    let reply = match ctx.client.reload(args.plan).await {
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
    if args.json {
        ctx.out.json(&reply)?;
    } else {
        for line in render(&reply) {
            ctx.out.line(&line)?;
        }
    }
    Ok(code::OK)
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
