//! Plays a transcript and tells it again.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use snapbox::data::DataFormat;
use snapbox::{Assert, Data, IntoData, Redactions};

use crate::common::{self, Daemon};
use crate::redact;

/// Where the transcripts are. At run time and not by `env!`: two checkouts may share a target directory.
pub(crate) fn dir() -> PathBuf {
    let root = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR for tests");
    PathBuf::from(root).join("tests/cmd")
}

/// Plays the transcript of this name; fails if anything is said otherwise than it says.
#[track_caller]
pub(crate) fn play(name: &str) {
    let path = dir().join(format!("{name}.md"));
    let text = fs::read_to_string(&path).unwrap();
    // It lives until the comparison is done: if that fails, the fixture tells what the instance did.
    let mut session = Session::new();
    let told = session.tell(&text);
    // Placeholders and wildcards have been put in already.
    let expected = Data::read_from(&path, Some(DataFormat::Text)).raw();
    Assert::new().action_env(snapbox::assert::DEFAULT_ACTION_ENV).normalize_paths(false).eq(told, expected);
}

/// An instance, and somebody at the command line.
struct Session {
    daemon: Daemon,
    started: bool,
    redactions: Redactions,
}

impl Session {
    fn new() -> Self {
        let daemon = Daemon::prepare("");
        let redactions = redact::redactions(daemon.home());
        Self { daemon, started: false, redactions }
    }

    /// The text as it is, with what the commands say this time.
    fn tell(&mut self, text: &str) -> String {
        let mut told = String::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            told.push_str(line);
            told.push('\n');
            let Some(language) = line.strip_prefix("```") else { continue };
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            if language == "console" {
                told.push_str(&self.console(&block));
            } else {
                let content: String = block.iter().flat_map(|line| [*line, "\n"]).collect();
                self.file(language, &content);
                told.push_str(&content);
            }
            told.push_str("```\n");
        }
        told
    }

    /// A block that is no dialogue: the configuration, or another file.
    fn file(&mut self, language: &str, content: &str) {
        if let Some(name) = language.strip_prefix("toml ") {
            self.daemon.write(name, content);
            return;
        }
        assert_eq!(language, "toml", "what to do with such a block?");
        self.daemon.write_config(content);
        if !self.started {
            self.daemon.up();
            self.started = true;
        }
    }

    /// A dialogue: each command with what it says, as far as it differs from what is expected.
    fn console(&self, block: &[&str]) -> String {
        let mut told = String::new();
        let mut lines = block.iter().peekable();
        while let Some(line) = lines.next() {
            let command =
                line.strip_prefix("$ ").unwrap_or_else(|| panic!("a command begins with `$ `: {line}"));
            let mut expected = String::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with("$ ")) {
                if !(expected.is_empty() && line.starts_with("? ")) {
                    expected.push_str(line);
                    expected.push('\n');
                }
            }
            let (code, said) = self.run(command);
            told.push_str(&format!("$ {command}\n"));
            if code != 0 {
                told.push_str(&format!("? {code}\n"));
            }
            told.push_str(&with_wildcards(said, &expected));
        }
        told
    }

    /// Runs a command line and gives its exit code and all that it says.
    fn run(&self, line: &str) -> (i32, String) {
        let plain = self.daemon.command([""; 0]);
        // Both streams in one pipe keep their order, as on a terminal.
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", &format!("exec 2>&1\n{line}")])
            .current_dir(self.daemon.home())
            .stdin(Stdio::null());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        let program = PathBuf::from(plain.get_program());
        let mut path = program.parent().unwrap().as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        // Help is laid out for this many columns where there is no terminal.
        shell.env("PATH", path).env_remove("COLUMNS");
        let said = common::run(&mut shell);
        let mut text = redact::align(&self.redactions.redact(&said.text()));
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        (said.code, text)
    }
}

/// What was said, with the wildcards of what is expected where they fit. Command by command, so that none
/// of them covers what the next one says.
fn with_wildcards(said: String, expected: &str) -> String {
    let assert = Assert::new().normalize_paths(false);
    let (said, _) = assert.normalize(said.into_data(), expected.to_owned().into_data());
    said.render().expect("it was text before")
}

#[test]
fn wildcards_stay_only_where_they_fit() {
    let told = |expected| with_wildcards("one 17\ntwo\nthree\n".to_owned(), expected);
    assert_eq!(told("one [..]\n...\nthree\n"), "one [..]\n...\nthree\n");
    assert_eq!(told("one [..]\nthree\n"), "one [..]\ntwo\nthree\n");
    assert_eq!(told("five [..]\n...\n"), "one 17\n...\n");
    assert_eq!(told(""), "one 17\ntwo\nthree\n");
}
