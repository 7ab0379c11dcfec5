//! `outlive audit`.

use super::args::AuditArgs;
use super::error::Fail;
use super::table::table;
use super::{Ctx, code};
use crate::core::audit::Deed;

pub(crate) async fn audit(args: &AuditArgs, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    let deeds = ctx.client.audit(args.lines).await?;
    if args.json {
        ctx.out.json(&deeds)?;
        return Ok(code::OK);
    }
    let rows: Vec<Vec<String>> = deeds.iter().map(row).collect();
    for row in table(&["WHEN", "WHO", "WHAT", "JOB", "BECAME"], &rows, ctx.out.width) {
        ctx.out.line(row.concat().trim_end())?;
    }
    Ok(code::OK)
}

fn row(deed: &Deed) -> Vec<String> {
    let became = match (deed.before.as_str(), deed.after.as_str()) {
        (before, after) if before == after => after.to_owned(),
        (before, after) => format!("{before} -> {after}"),
    };
    let why = if deed.why.is_empty() { String::new() } else { format!(" ({})", deed.why) };
    vec![
        deed.at.clone(),
        deed.who.clone(),
        deed.what.clone(),
        deed.job.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
        format!("{became}{why}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ids::JobName;

    #[test]
    fn a_deed_is_one_line_with_what_it_changed() {
        let mut deed = Deed {
            seq: 1,
            at: "now".to_owned(),
            who: "user 0".to_owned(),
            what: "stop".to_owned(),
            job: Some(JobName::new("web").unwrap()),
            run: None,
            why: String::new(),
            before: "running, wanted".to_owned(),
            after: "stopping, not wanted".to_owned(),
        };
        assert_eq!(row(&deed), ["now", "user 0", "stop", "web", "running, wanted -> stopping, not wanted"]);
        (deed.job, deed.why) = (None, "exit 1".to_owned());
        deed.before.clone_from(&deed.after);
        assert_eq!(row(&deed)[3..], ["-", "stopping, not wanted (exit 1)"]);
    }
}
