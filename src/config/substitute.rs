//! `${VAR}`, `${VAR:-default}`, `${VAR:?message}`, `$$` and `{n}` in the texts of a job.
//!
//! Variables come from the environment of the reader and are put in once; what they hold is not looked at
//! again. A `$` before anything but `{` or `$` is itself. The number of an instance is not known yet when a
//! text is read, so `{n}` becomes a mark, and [`instantiate`] puts the number in its place. The mark is NUL,
//! which no text of a job may hold: neither arguments, nor the environment, nor paths can carry it.

use std::collections::BTreeMap;

/// Stands where the number of the instance goes.
const MARK: char = '\0';

/// How deep defaults may hold references of their own.
const DEEPEST: usize = 16;

/// Why a text cannot be substituted: the message and a suggestion.
pub(super) type Bad = (String, Option<String>);

/// Puts variables in, and a mark for every `{n}`.
///
/// # Errors
/// A variable that is not set, a `:?` message, a reference without end, a NUL.
pub(super) fn substitute(text: &str, env: &BTreeMap<String, String>) -> Result<String, Bad> {
    if text.contains(MARK) {
        return Err(("a NUL character is not possible here".into(), None));
    }
    let mut out = String::with_capacity(text.len());
    expand(text, env, 0, &mut out)?;
    Ok(out)
}

/// Whether the number of the instance is asked for.
pub(super) fn has_instance(text: &str) -> bool {
    text.contains(MARK)
}

/// Puts the number of the instance in.
pub(super) fn instantiate(text: &str, number: u32) -> String {
    if has_instance(text) { text.replace(MARK, &number.to_string()) } else { text.to_owned() }
}

/// The text again as it was written, for a message.
pub(super) fn shown(text: &str) -> String {
    text.replace(MARK, "{n}")
}

/// Bytes of the `${…}` that `text` begins with, if its end is there.
pub(super) fn reference_length(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        // Units that a brace belongs to without ending the reference.
        let unit = ["$$", "{{n}}", "{n}"].iter().find(|unit| rest.starts_with(**unit));
        if let Some(unit) = unit {
            at += unit.len();
        } else if rest.starts_with("${") {
            depth += 1;
            at += 2;
        } else if rest.starts_with('}') {
            depth -= 1;
            at += 1;
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    None
}

fn expand(text: &str, env: &BTreeMap<String, String>, depth: usize, out: &mut String) -> Result<(), Bad> {
    if depth > DEEPEST {
        return Err(("references inside references go too deep".into(), None));
    }
    let mut rest = text;
    while let Some(at) = rest.find(['$', '{']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        // `$${n}` is a shell's `${n}`, so the brace after a doubled dollar is plain.
        let plain = [("$${", "${"), ("$$", "$"), ("{{n}}", "{n}"), ("{n}", "\0")];
        if let Some((from, to)) = plain.iter().find(|(from, _)| rest.starts_with(from)) {
            out.push_str(to);
            rest = &rest[from.len()..];
        } else if rest.starts_with("${") {
            let Some(length) = reference_length(rest) else {
                return Err(("a `${` is never closed".into(), Some("write `$${` for the text `${`".into())));
            };
            reference(&rest[2..length - 1], env, depth, out)?;
            rest = &rest[length..];
        } else {
            // A `$` or a brace that begins nothing; both are one byte.
            out.push_str(&rest[..1]);
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    Ok(())
}

/// One reference, without `${` and `}`.
fn reference(
    inside: &str,
    env: &BTreeMap<String, String>,
    depth: usize,
    out: &mut String,
) -> Result<(), Bad> {
    let end = inside.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(inside.len());
    let (name, tail) = inside.split_at(end);
    let value = env.get(name).map(String::as_str);
    let filled = value.filter(|v| !v.is_empty());
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        let suggestion = format!("write `$${{{inside}}}` for the text `${{{inside}}}`");
        return Err((format!("`${{{inside}}}` names no variable"), Some(suggestion)));
    }
    if let Some(default) = tail.strip_prefix(":-") {
        return match filled {
            Some(value) => put(name, value, out),
            None => expand(default, env, depth + 1, out),
        };
    }
    if let Some(message) = tail.strip_prefix(":?") {
        let Some(value) = filled else {
            let message = if message.is_empty() { "it must be set" } else { message };
            return Err((format!("`{name}` is not set: {message}"), None));
        };
        return put(name, value, out);
    }
    if !tail.is_empty() {
        let suggestion = "the forms are `${VAR}`, `${VAR:-default}` and `${VAR:?message}`";
        return Err((format!("`${{{inside}}}` is no substitution"), Some(suggestion.into())));
    }
    match value {
        Some(value) => put(name, value, out),
        None if name == "n" => {
            let suggestion = "write `{n}` for the number of the instance, `$${n}` for the text `${n}`";
            Err(("the environment variable `n` is not set".into(), Some(suggestion.into())))
        }
        None => {
            let suggestion = format!("write `${{{name}:-default}}`, or `$${{{name}}}` for the text itself");
            Err((format!("the environment variable `{name}` is not set"), Some(suggestion)))
        }
    }
}

fn put(name: &str, value: &str, out: &mut String) -> Result<(), Bad> {
    if value.contains(MARK) {
        return Err((format!("the environment variable `{name}` holds a NUL character"), None));
    }
    out.push_str(value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env() -> BTreeMap<String, String> {
        [("A", "one two"), ("EMPTY", ""), ("RAW", "${A} {n} $$"), ("NUL", "a\0b")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into()
    }

    #[test]
    fn variables_defaults_and_dollars() {
        for (text, wanted) in [
            ("plain { } $ $x a$", "plain { } $ $x a$"),
            ("<${A}>", "<one two>"),
            ("${EMPTY}|${EMPTY:-d}|${NOPE:-d}|${NOPE:-}|${A:-d}", "|d|d||one two"),
            ("${NOPE:-${ALSO:-${A}}}!", "one two!"),
            ("${A:?needed}", "one two"),
            ("$$ $${A} $$$$ $$A", "$ ${A} $$ $A"),
            ("$((i+1)) $(date) $1", "$((i+1)) $(date) $1"),
            ("${RAW}", "${A} {n} $$"),
            ("é${A}→", "éone two→"),
            ("${NOPE:-a$$}b}", "a$b}"),
        ] {
            assert_eq!(substitute(text, &env()).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn instances() {
        let text = substitute("w{n} {{n}} $${n} ${NOPE:-d{n}}", &env()).unwrap();
        assert!(has_instance(&text));
        assert_eq!(instantiate(&text, 12), "w12 {n} ${n} d12");
        assert_eq!(shown(&text), "w{n} {n} ${n} d{n}");
        assert!(!has_instance(&substitute("${RAW}", &env()).unwrap()));
    }

    #[test]
    fn what_is_missing_is_named() {
        for (text, message) in [
            ("${NOPE}", "the environment variable `NOPE` is not set"),
            ("${n}", "the environment variable `n` is not set"),
            ("${NOPE:?set it to the port}", "`NOPE` is not set: set it to the port"),
            ("${EMPTY:?}", "`EMPTY` is not set: it must be set"),
            ("${A", "a `${` is never closed"),
            ("${A:-${B}", "a `${` is never closed"),
            ("${}", "`${}` names no variable"),
            ("${1}", "`${1}` names no variable"),
            ("${A-b}", "`${A-b}` is no substitution"),
            ("${A%.txt}", "`${A%.txt}` is no substitution"),
            ("${NUL}", "the environment variable `NUL` holds a NUL character"),
            ("a\0", "a NUL character is not possible here"),
        ] {
            assert_eq!(substitute(text, &env()).unwrap_err().0, message, "{text}");
        }
        let deep = format!("{}x{}", "${N:-".repeat(30), "}".repeat(30));
        assert_eq!(substitute(&deep, &env()).unwrap_err().0, "references inside references go too deep");
    }
}
