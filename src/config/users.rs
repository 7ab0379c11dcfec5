//! Whether a user or a group exists, by the text of `/etc/passwd` and `/etc/group`.
//!
//! Numbers are always accepted: a container image may have no such files, and names from elsewhere (LDAP)
//! are not seen here.

use std::path::Path;

/// The account files of the machine.
#[derive(Debug, Clone, Default)]
pub(super) struct Accounts {
    /// Text of `/etc/passwd`; `None` if it cannot be read.
    pub passwd: Option<String>,
    /// Text of `/etc/group`; `None` if it cannot be read.
    pub group: Option<String>,
}

/// Which of the two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Account {
    User,
    Group,
}

impl Accounts {
    /// Those of this machine.
    pub(super) fn of_this_machine() -> Self {
        let read =
            |path: &str| std::fs::read(Path::new(path)).ok().map(|b| String::from_utf8_lossy(&b).into());
        Self { passwd: read("/etc/passwd"), group: read("/etc/group") }
    }

    /// Whether `name` is a number or stands in the file.
    ///
    /// # Errors
    /// The message and a suggestion.
    pub(super) fn check(&self, what: Account, name: &str) -> Result<(), (String, Option<String>)> {
        let (word, path, text) = match what {
            Account::User => ("user", "/etc/passwd", &self.passwd),
            Account::Group => ("group", "/etc/group", &self.group),
        };
        if name.parse::<u32>().is_ok_and(|id| id != u32::MAX) {
            return Ok(());
        }
        if name.is_empty() {
            return Err((format!("the name of the {word} is empty"), None));
        }
        let number = format!("a {word} from elsewhere is given by its number");
        let Some(text) = text else {
            return Err((format!("unknown {word} `{name}`: {path} cannot be read"), Some(number)));
        };
        let names = || text.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name);
        if names().any(|known| known == name) {
            return Ok(());
        }
        let meant = super::suggest::did_you_mean(name, names());
        Err((format!("unknown {word} `{name}`"), meant.or(Some(number))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_the_files_and_any_number() {
        let accounts = Accounts {
            passwd: Some("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n".into()),
            group: None,
        };
        for name in ["root", "nobody", "0", "4242"] {
            assert_eq!(accounts.check(Account::User, name), Ok(()), "{name}");
        }
        let (message, hint) = accounts.check(Account::User, "nobdy").unwrap_err();
        assert_eq!(
            (message.as_str(), hint.as_deref()),
            ("unknown user `nobdy`", Some("did you mean `nobody`?"))
        );
        for name in ["", "-1", "4294967295", "roo:t"] {
            assert!(accounts.check(Account::User, name).is_err(), "{name}");
        }
        let (message, _) = accounts.check(Account::Group, "wheel").unwrap_err();
        assert_eq!(message, "unknown group `wheel`: /etc/group cannot be read");
    }
}
