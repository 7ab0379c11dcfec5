//! Wildcards in `include`: `*`, `?` and `[…]` within one part of a path. Hidden files are matched only by a
//! pattern that begins with a dot, so that what editors leave behind is not read.

use std::io;
use std::path::{Component, Path, PathBuf};

/// Whether there is a wildcard in it.
pub(super) fn has_wildcard(pattern: &str) -> bool {
    pattern.contains(['*', '?', '['])
}

/// The existing paths that match `pattern`, sorted; relative patterns are looked up in `base`. A directory
/// that does not exist matches nothing.
///
/// # Errors
/// A directory that is there and cannot be read.
pub(super) fn expand(base: &Path, pattern: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![base.to_owned()];
    for part in Path::new(pattern).components() {
        let text = part.as_os_str().to_string_lossy();
        if !matches!(part, Component::Normal(_)) || !has_wildcard(&text) {
            for path in &mut found {
                path.push(part);
            }
            continue;
        }
        let mut next = Vec::new();
        for dir in &found {
            next.extend(entries(dir)?.into_iter().filter(|name| matches(&text, name)).map(|n| dir.join(n)));
        }
        next.sort();
        found = next;
    }
    found.retain(|path| path.exists());
    Ok(found)
}

/// Names in a directory; none if it is not there or no directory.
fn entries(dir: &Path) -> io::Result<Vec<String>> {
    let listing = match std::fs::read_dir(dir) {
        Ok(listing) => listing,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(e) => return Err(e),
    };
    listing.map(|entry| entry.map(|e| e.file_name().to_string_lossy().into_owned())).collect()
}

/// Whether one part of a path matches one part of a pattern.
fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    // Where to go on when what follows the last `*` turns out not to fit: one character later.
    let mut retry: Option<(usize, usize)> = None;
    let (mut p, mut n) = (0, 0);
    while n < name.len() {
        if pattern.get(p) == Some(&'*') {
            retry = Some((p + 1, n));
            p += 1;
        } else if let Some(width) = one(&pattern[p..], name[n]) {
            p += width;
            n += 1;
        } else if let Some((after_star, from)) = retry {
            retry = Some((after_star, from + 1));
            (p, n) = (after_star, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// How long the piece of the pattern is that matches this character; `None` if it does not match.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern.first()? {
        '?' => Some(1),
        '[' => match class(pattern) {
            Some((set, negated, width)) => {
                let inside = set.iter().any(|(low, high)| (*low..=*high).contains(&c));
                (inside != negated).then_some(width)
            }
            None => (c == '[').then_some(1),
        },
        plain => (*plain == c).then_some(1),
    }
}

type Class = (Vec<(char, char)>, bool, usize);

/// A `[…]`: its ranges, whether it begins with `!` or `^`, and its length. `None` if it has no end.
fn class(pattern: &[char]) -> Option<Class> {
    let negated = matches!(pattern.get(1), Some('!' | '^'));
    let first = if negated { 2 } else { 1 };
    let mut set = Vec::new();
    let mut at = first;
    loop {
        let low = *pattern.get(at)?;
        if low == ']' && at > first {
            return Some((set, negated, at + 1));
        }
        match (pattern.get(at + 1), pattern.get(at + 2)) {
            (Some('-'), Some(high)) if *high != ']' => {
                set.push((low, *high));
                at += 3;
            }
            _ => {
                set.push((low, low));
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_match_as_in_a_shell() {
        for (pattern, yes, no) in [
            ("*.toml", &["a.toml", "a.b.toml"][..], &["a.tom", ".a.toml", "toml"][..]),
            ("a?c", &["abc", "aéc"], &["ac", "abbc"]),
            ("*a*b*", &["ab", "xaybz", "aab"], &["ba", "a"]),
            ("[a-c1]x", &["ax", "cx", "1x"], &["dx", "x"]),
            ("[!a-c]", &["d", "-"], &["a", ""]),
            ("[]x]", &["]", "x"], &["a"]),
            ("[ab", &["[ab"], &["a"]),
            (".*", &[".a"], &["a"]),
            ("**", &["a", "abc"], &[".a"]),
        ] {
            for name in yes {
                assert!(matches(pattern, name), "{pattern} {name}");
            }
            for name in no {
                assert!(!matches(pattern, name), "{pattern} {name}");
            }
        }
        assert!(!matches(&"*a".repeat(40), &"a".repeat(39)));
    }

    #[test]
    fn paths_are_found_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.d/2.toml", "b.d/1.toml", "a.d/3.toml", "a.d/.hidden.toml", "a.d/readme"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::File::create(path).unwrap();
        }
        let found = |pattern: &str| -> Vec<String> {
            let short = |p: PathBuf| p.strip_prefix(dir.path()).unwrap().display().to_string();
            expand(dir.path(), pattern).unwrap().into_iter().map(short).collect()
        };
        assert_eq!(found("*.d/*.toml"), ["a.d/3.toml", "b.d/1.toml", "b.d/2.toml"]);
        assert_eq!(found("b.d/1.toml"), ["b.d/1.toml"]);
        assert_eq!(found("none/*.toml"), Vec::<String>::new());
        assert_eq!(found("a.d/readme/*"), Vec::<String>::new());
        let absolute = dir.path().join("a.d/*.toml");
        assert_eq!(found(absolute.to_str().unwrap()), ["a.d/3.toml"]);
    }
}
