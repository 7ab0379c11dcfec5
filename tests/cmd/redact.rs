//! What is different each time, and the placeholders that stand for it.

use std::path::Path;

use regex::Regex;
use snapbox::Redactions;

/// Placeholder, and what it stands for: the group `redacted` of a match, or else all of it.
const VARYING: &[(&str, &str)] = &[
    ("[RUN]", "[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"),
    ("[TIME]", "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z"),
    ("[TIME]", "[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}[.][0-9]{3}"),
    // In JSON, in the headline of `status`, in its table.
    ("[PID]", "\"pid\": (?<redacted>[0-9]+)"),
    ("[PID]", "(?:init|keeper|supervisor) (?<redacted>[0-9]+)[,;]"),
    ("[PID]", "(?m)^[^ ]+ +(?:starting|running|stopping) +(?<redacted>[0-9]+) "),
    // In the headline of `status`, in its table, in its notes.
    ("[AGE]", "running for (?<redacted>[0-9dhms]+)"),
    ("[AGE]", "(?m)^[^ ]+ +(?:starting|running|stopping) +[^ ]+ +(?<redacted>[0-9][0-9dhms]*) "),
    ("[AGE]", "(?<redacted>[0-9][0-9dhms]*) ago"),
    // The number of an entry of the event log, as `events` begins its lines.
    ("[SEQ]", "(?m)^(?<redacted> +[0-9]+) (?:\\[TIME\\]|[0-9]{4}-)"),
];

/// The placeholders for one instance.
pub(crate) fn redactions(home: &Path) -> Redactions {
    let mut redactions = Redactions::new();
    redactions.insert("[DIR]", home.to_str().unwrap().to_owned()).unwrap();
    redactions.insert("[VERSION]", env!("CARGO_PKG_VERSION")).unwrap();
    for (placeholder, pattern) in VARYING {
        redactions.insert(placeholder, Regex::new(pattern).unwrap()).unwrap();
    }
    redactions
}

/// Lays out the table of `status` again: a placeholder is not as wide as what it stands for.
pub(crate) fn align(text: &str) -> String {
    let Some(start) = text.find("NAME  ") else { return text.to_owned() };
    let (before, table) = text.split_at(start);
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    let wide = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|c| c.len()).max();
    let mut told = before.to_owned();
    for row in &rows {
        let cells = row.iter().enumerate().map(|(n, cell)| format!("{cell:0$}  ", wide(n).unwrap_or(0)));
        told.push_str(cells.collect::<String>().trim_end());
        told.push('\n');
    }
    told
}

#[test]
fn a_table_is_aligned_by_its_placeholders() {
    let redactions = redactions(Path::new("/tmp/home"));
    let told = "x: running for 3m05s (init 7, keeper 18, supervisor 19; generation 1)\n\
                NAME    STATE    PID      UPTIME  RESTARTS  NOTE\n\
                web     running  1234567  3m05s   0\n\
                backup  exited   -        -       0         exit 3 1h02m ago\n";
    assert_eq!(
        align(&redactions.redact(told)),
        "x: running for [AGE] (init [PID], keeper [PID], supervisor [PID]; generation 1)\n\
         NAME    STATE    PID    UPTIME  RESTARTS  NOTE\n\
         web     running  [PID]  [AGE]   0\n\
         backup  exited   -      -       0         exit 3 [AGE] ago\n"
    );
}
