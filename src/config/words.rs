//! Splitting a command into words as a POSIX shell does: blanks, quotes and backslashes, nothing expanded.
//!
//! Two things are seen that a plain splitter would not see. What only a shell can do (`|`, `&&`, `>`) is an
//! error instead of an argument. And `${…}` stays in one word, because it is substituted after the split.

/// What to do about a text that only a shell can read.
const FOR_A_SHELL: &str =
    "write [\"sh\", \"-c\", \"…\"], quote it, or set `shell = true` for the command of a job";

/// Why a command cannot be split: the message and a suggestion.
pub(super) type Bad = (String, Option<String>);

/// The words of a command.
///
/// # Errors
/// A quote or backslash without its other half, or an operator of the shell outside quotes.
pub(super) fn split(text: &str) -> Result<Vec<String>, Bad> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                if !until(&mut chars, '\'', |c| word.push(c)) {
                    return Err(unterminated('\''));
                }
            }
            '"' => double(text, &mut chars, word.get_or_insert_default())?,
            '\\' => match chars.next() {
                Some((_, '\n')) => {}
                Some((_, escaped)) => push_literal(word.get_or_insert_default(), escaped),
                None => return Err(("the command ends in a backslash".into(), None)),
            },
            '$' if text[at..].starts_with("${") => {
                reference(text, at, &mut chars, word.get_or_insert_default())
            }
            '|' | '&' | ';' | '<' | '>' | '(' | ')' | '`' => {
                let message = format!("`{c}` outside quotes is for a shell, and none is asked for");
                return Err((message, Some(FOR_A_SHELL.into())));
            }
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

type Chars<'a> = std::str::CharIndices<'a>;

/// The inside of double quotes, where a backslash protects only `$`, a backquote, `"`, itself and a line end.
fn double(text: &str, chars: &mut Chars<'_>, word: &mut String) -> Result<(), Bad> {
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok(()),
            '\\' => match chars.next() {
                Some((_, '\n')) => {}
                Some((_, escaped @ ('$' | '`' | '"' | '\\'))) => push_literal(word, escaped),
                Some((_, other)) => word.extend(['\\', other]),
                None => break,
            },
            '$' if text[at..].starts_with("${") => reference(text, at, chars, word),
            _ => word.push(c),
        }
    }
    Err(unterminated('"'))
}

/// Takes `${…}` over as it is, blanks and quotes included. One that has no end is left to the substitution,
/// which says so.
fn reference(text: &str, at: usize, chars: &mut Chars<'_>, word: &mut String) {
    let length = super::substitute::reference_length(&text[at..]).unwrap_or(1);
    let whole = &text[at..at + length];
    word.push_str(whole);
    // The `$` has been taken.
    for _ in whole.chars().skip(1) {
        chars.next();
    }
}

/// A protected `$` stays one through the substitution.
fn push_literal(word: &mut String, c: char) {
    if c == '$' {
        word.push('$');
    }
    word.push(c);
}

fn until(chars: &mut Chars<'_>, end: char, mut each: impl FnMut(char)) -> bool {
    for (_, c) in chars {
        if c == end {
            return true;
        }
        each(c);
    }
    false
}

fn unterminated(quote: char) -> Bad {
    let message = format!("a {quote} in the command is never closed");
    (message, Some("close it, or write the command as a list".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_quotes_and_backslashes() {
        for (text, words) in [
            ("", &[][..]),
            ("  \t\n ", &[]),
            ("a  b\tc\nd", &["a", "b", "c", "d"]),
            ("'a b' \"c d\" e\\ f", &["a b", "c d", "e f"]),
            ("a'b'\"c\"d", &["abcd"]),
            ("'' \"\" x", &["", "", "x"]),
            (r#"'a\b' "a\b" "a\"b\\" a\b"#, &[r"a\b", r"a\b", "a\"b\\", "ab"]),
            ("a\\\nb \"c\\\nd\"", &["ab", "cd"]),
            ("'|' \"&&\" \\; a#b", &["|", "&&", ";", "a#b"]),
            ("--url='http://x/?a=1&b=2'", &["--url=http://x/?a=1&b=2"]),
            ("é '→ ü'", &["é", "→ ü"]),
            ("\"it's\"", &["it's"]),
        ] {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
    }

    #[test]
    fn references_stay_whole_and_a_protected_dollar_stays_a_dollar() {
        for (text, words) in [
            ("a ${X:-b c} d", &["a", "${X:-b c}", "d"][..]),
            ("${X:-\"}", &["${X:-\"}"]),
            ("\"${X:-a \"q\" b}\"", &["${X:-a \"q\" b}"]),
            ("${A:-${B:-x y}}z", &["${A:-${B:-x y}}z"]),
            (r#"\${X} "\${X}" '$X' $X"#, &["$${X}", "$${X}", "$X", "$X"]),
            ("${X y", &["${X", "y"]),
        ] {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_split_says_why() {
        for (text, message) in [
            ("a 'b", "a ' in the command is never closed"),
            ("a \"b", "a \" in the command is never closed"),
            ("\"a\\", "a \" in the command is never closed"),
            ("a\\", "the command ends in a backslash"),
            ("a && b", "`&` outside quotes is for a shell, and none is asked for"),
            ("a >f", "`>` outside quotes is for a shell, and none is asked for"),
        ] {
            assert_eq!(split(text).unwrap_err().0, message, "{text}");
        }
    }
}
