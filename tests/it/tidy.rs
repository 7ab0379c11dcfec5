//! Holds the source to its promises: who imports whom, what `core` may not name, where unsafe code and
//! tokio may be, and the habits that make files findable.

use std::fs;
use std::path::{Path, PathBuf};

/// Top-level module, and what of ours it may import. `x::y` allows only that part of `x`.
const IMPORTS: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("sys", &[]),
    ("wire", &["core"]),
    ("config", &["core"]),
    ("journal", &["core", "sys"]),
    ("state_dir", &["core", "sys"]),
    ("init", &["sys", "wire"]),
    (
        "keeper",
        &[
            "core::ids",
            "core::identity",
            "core::outcome",
            "core::rung",
            "core::signal",
            "core::spec",
            "core::time",
            "sys",
            "wire",
            "state_dir",
        ],
    ),
    ("helper", &["core::outcome", "core::signal", "core::time", "sys", "wire"]),
    (
        "supervisor",
        &["core", "sys", "wire", "config", "journal", "state_dir", "control", "init", "keeper", "helper"],
    ),
    ("control", &["core", "wire", "state_dir", "journal", "supervisor::handle"]),
    ("client", &["core", "wire"]),
    ("roles", &[]),
    ("cli", &["core", "wire", "client", "config", "journal::inspect"]),
    // From a command line to an instance: the one place that knows both sides.
    (
        "up",
        &[
            "cli",
            "client",
            "config",
            "control::PATH_BYTES_MAX",
            "roles",
            "state_dir",
            "supervisor",
            "sys",
            "wire",
        ],
    ),
];

/// What `core` may not name: clocks, I/O, threads, logging, async.
const NOT_IN_CORE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "std::env",
    "std::time::Instant",
    "Instant",
    "SystemTime",
    "Utc::now",
    "tokio",
    "tracing",
    "libc",
    "rustix",
];

/// The only modules that may name tokio.
const TOKIO_IN: &[&str] = &["supervisor", "control", "client", "cli", "up"];

/// Longest file, in lines.
const LINES_MAX: usize = 600;

/// Longer files, each with the reason why it is not cut.
const LONGER: &[(&str, &str)] = &[];

/// At run time and not by `env!`: two checkouts that share a target directory would otherwise check
/// each other's sources.
fn root() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR for tests"))
}

struct Source {
    /// Relative to the root.
    path: String,
    text: String,
}

impl Source {
    /// The top-level module of a file below `src`; `None` for `lib.rs` and `main.rs`.
    fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        let first = inside.split('/').next()?;
        let name = first.strip_suffix(".rs").unwrap_or(first);
        (name != "lib" && name != "main").then_some(name)
    }

    /// How many `super` lead from this file's module to the crate's root.
    fn depth(&self) -> usize {
        let inside = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        let parts = inside.split('/').count();
        if inside.ends_with("/mod") { parts - 1 } else { parts }
    }

    /// Whether the whole file is test code.
    fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// The code: without comments, and without the test module at the end.
    fn code(&self) -> String {
        let mut code = String::new();
        for line in self.text.lines() {
            if line.starts_with("#[cfg(test)]") {
                break;
            }
            let line = line.trim_start();
            if !line.starts_with("//") {
                code.push_str(line.split(" // ").next().unwrap_or(line));
                code.push('\n');
            }
        }
        code
    }
}

fn sources(below: &[&str]) -> Vec<Source> {
    let root = root();
    let mut files = Vec::new();
    for dir in below {
        collect(&root.join(dir), &mut files);
    }
    files.sort();
    files
        .into_iter()
        .map(|file| Source {
            path: file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(),
            text: fs::read_to_string(&file).unwrap(),
        })
        .collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `word` stands alone in `code`.
fn names(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        !code[..at].ends_with(is_word_char) && !code[at + word.len()..].starts_with(is_word_char)
    })
}

/// Paths from the crate's root that the code names, cut to two segments (`core::ids`).
fn crate_paths(code: &str, depth: usize) -> Vec<String> {
    let roots = ["crate::".to_owned(), "super::".repeat(depth)];
    let mut found = Vec::new();
    for root in roots.iter().filter(|root| !root.is_empty()) {
        for (at, _) in code.match_indices(root.as_str()) {
            let before = &code[..at];
            if !before.ends_with(is_word_char) && !before.ends_with("::") {
                found.extend(expand(&code[at + root.len()..]));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The one or two segments that a path begins with, for each branch of a group.
fn expand(rest: &str) -> Vec<String> {
    let rest = rest.trim_start();
    if let Some(inside) = rest.strip_prefix('{') {
        return branches(inside).into_iter().flat_map(expand).collect();
    }
    let first: String = rest.chars().take_while(|c| is_word_char(*c)).collect();
    let Some(after) = rest[first.len()..].strip_prefix("::") else { return vec![first] };
    let after = after.trim_start();
    let seconds: Vec<String> = match after.strip_prefix('{') {
        Some(inside) => branches(inside)
            .into_iter()
            .map(|branch| branch.trim_start().chars().take_while(|c| is_word_char(*c)).collect())
            .collect(),
        None => vec![after.chars().take_while(|c| is_word_char(*c)).collect()],
    };
    seconds.into_iter().map(|second| format!("{first}::{second}")).collect()
}

/// The branches of a group whose opening brace has been read.
fn branches(inside: &str) -> Vec<&str> {
    let (mut depth, mut from, mut found) = (0, 0, Vec::new());
    for (at, c) in inside.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                found.push(&inside[from..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(&inside[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    found.retain(|branch| !branch.trim().is_empty());
    found
}

#[track_caller]
fn none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

#[test]
fn imports_go_one_way() {
    let mut wrong = Vec::new();
    for source in sources(&["src"]).iter().filter(|s| !s.is_test()) {
        let Some(module) = source.module() else { continue };
        let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{}: the module {module} is in no row of the table", source.path));
            continue;
        };
        for path in crate_paths(&source.code(), source.depth()) {
            let target = path.split("::").next().unwrap_or_default();
            let known = IMPORTS.iter().any(|(name, _)| *name == target);
            let fine = target == module || allowed.contains(&target) || allowed.contains(&path.as_str());
            if known && !fine {
                wrong.push(format!("{}: {module} may not import {path}", source.path));
            }
        }
    }
    none("imports against the direction", &wrong);
}

#[test]
fn the_import_scan_sees_every_spelling() {
    let see = |code: &str, depth| crate_paths(code, depth);
    assert_eq!(see("use crate::cli::up;", 1), ["cli::up"]);
    assert_eq!(see("let x = crate::journal::open(p);", 1), ["journal::open"]);
    assert_eq!(see("use crate::{core::ids::RunId, cli};", 1), ["cli", "core::ids"]);
    assert_eq!(see("use crate::core::{ids::RunId, job::{A, B}};", 1), ["core::ids", "core::job"]);
    assert_eq!(see("use super::super::control::x;", 2), ["control::x"]);
    assert!(see("use super::control::x;", 2).is_empty());
    assert!(see("mycrate::cli::x", 1).is_empty());
}

#[test]
fn core_is_pure() {
    let mut wrong = Vec::new();
    for source in sources(&["src/core"]).iter().filter(|s| !s.is_test()) {
        let code = source.code();
        for name in NOT_IN_CORE {
            if names(&code, name) {
                wrong.push(format!("{}: {name}", source.path));
            }
        }
        for (at, _) in code.match_indices("std::{") {
            for branch in branches(&code[at + "std::{".len()..]) {
                let path = format!("std::{}", branch.trim());
                if NOT_IN_CORE.iter().any(|name| path.starts_with(name)) {
                    wrong.push(format!("{}: {path}", source.path));
                }
            }
        }
    }
    none("not pure", &wrong);
}

#[test]
fn tokio_stays_where_something_is_awaited() {
    let wrong: Vec<String> = sources(&["src"])
        .iter()
        .filter(|s| !s.module().is_some_and(|m| TOKIO_IN.contains(&m)))
        .filter(|s| names(&s.code(), "tokio"))
        .map(|s| s.path.clone())
        .collect();
    none("tokio", &wrong);
}

/// One file is the way to the disk for the event log and its checkpoints, so that a test can put another
/// disk there; nobody else knows where they are.
#[test]
fn the_event_log_has_one_way_to_its_files() {
    let mut wrong = Vec::new();
    for source in sources(&["src"]).iter().filter(|s| !s.is_test()) {
        let code = source.code();
        if source.module() == Some("journal") {
            let files = ["std::fs", "fs::File", "File::", "OpenOptions", "disk::", "rustix", "libc"];
            let own = source.path == "src/journal/fs.rs";
            wrong.extend(
                files.iter().filter(|f| !own && code.contains(**f)).map(|f| format!("{}: {f}", source.path)),
            );
        } else if source.path != "src/state_dir/layout.rs" {
            let names =
                ["join(\"journal\")", "join(\"checkpoints\")", ".journal()", ".checkpoints()", "journal::Fs"];
            wrong
                .extend(names.iter().filter(|n| code.contains(**n)).map(|n| format!("{}: {n}", source.path)));
        }
    }
    none("past the event log's own way to its files", &wrong);
}

#[test]
fn unsafe_code_is_in_sys_alone() {
    let wrong: Vec<String> = sources(&["src"])
        .iter()
        .filter(|s| s.module() != Some("sys"))
        .filter(|s| names(&s.code(), "unsafe"))
        .map(|s| s.path.clone())
        .collect();
    none("unsafe", &wrong);
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here, so that this file does not accuse itself.
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("#[ig", "nore"),
    ];
    let mut wrong = Vec::new();
    for source in sources(&["src", "tests", "examples", "benches"]) {
        for (n, line) in source.text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(*word)) {
                wrong.push(format!("{}:{}: {word}", source.path, n + 1));
            }
        }
    }
    none("left for later", &wrong);
}

#[test]
fn every_file_says_what_it_is() {
    let wrong: Vec<String> = sources(&["src", "tests", "examples", "benches"])
        .iter()
        .filter(|s| !s.text.starts_with("//! "))
        .map(|s| s.path.clone())
        .collect();
    none("no `//!` at the top", &wrong);
}

#[test]
fn files_are_short() {
    let mut wrong = Vec::new();
    for source in sources(&["src", "tests", "examples", "benches"]) {
        let lines = source.text.lines().count();
        let excused = LONGER.iter().any(|(path, _)| *path == source.path);
        if (lines > LINES_MAX) != excused {
            wrong.push(format!("{}: {lines} lines{}", source.path, if excused { ", excused" } else { "" }));
        }
    }
    none("longer than agreed, or excused without need", &wrong);
}

/// Who wants to know how it works inside reads it in a quarter of an hour.
#[test]
fn the_architecture_page_is_short() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let lines = text.lines().count();
    assert!(lines <= 150, "ARCHITECTURE.md has {lines} lines");
}

#[test]
fn every_test_file_is_reached() {
    let mut wrong = Vec::new();
    for dir in ["tests/it", "tests/chaos", "tests/sweep", "tests/cmd", "tests/common"] {
        let files = sources(&[dir]);
        let head = files.iter().find(|s| s.path.ends_with("/main.rs") || s.path.ends_with("/mod.rs"));
        let Some(head) = head else { continue };
        for source in files.iter().filter(|s| s.path != head.path) {
            let name = Path::new(&source.path).file_stem().unwrap().to_str().unwrap();
            if !head.text.contains(&format!("mod {name};")) {
                wrong.push(source.path.clone());
            }
        }
    }
    none("compiled by nobody", &wrong);
}

#[test]
fn configurations_in_the_readme_are_toml() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let mut blocks = 0;
    for part in readme.split("```toml\n").skip(1) {
        let block = part.split("```").next().unwrap();
        blocks += 1;
        if let Err(error) = block.parse::<toml::Table>() {
            panic!("{error}\nin\n{block}");
        }
    }
    assert!(blocks > 0, "the README shows no configuration");
}

#[test]
fn licence_texts_are_there() {
    for (file, words) in
        [("LICENSE-MIT", "Permission is hereby granted"), ("LICENSE-APACHE", "Apache License")]
    {
        assert!(fs::read_to_string(root().join(file)).unwrap().contains(words), "{file}");
    }
}
