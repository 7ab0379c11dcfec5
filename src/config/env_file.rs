//! Environment files: `KEY=VALUE` lines.
//!
//! Blank lines and lines that begin with `#` are skipped, `export ` before a key is allowed. An unquoted
//! value ends at the end of the line or before ` #`. A value in `'…'` is taken as it is; in `"…"` a backslash
//! begins `\n`, `\t`, `\r` or protects the next character. Quoted values may hold line ends. Nothing is
//! substituted: what stands in such a file is often a secret, and secrets hold dollars.

/// An error: byte offset and message.
pub(super) type Bad = (usize, String);

/// The variables in the order of the file; the last of a name wins. Errors stand beside them, one for a line.
pub(super) fn parse(text: &str) -> (Vec<(String, String)>, Vec<Bad>) {
    let (mut vars, mut errors) = (Vec::new(), Vec::new());
    let mut at = text.len() - text.trim_start_matches('\u{feff}').len();
    while at < text.len() {
        match entry(text, at) {
            Ok((found, next)) => {
                vars.extend(found);
                at = next;
            }
            Err(bad) => {
                at = line_end(text, bad.0.max(at));
                errors.push(bad);
            }
        }
    }
    (vars, errors)
}

type Entry = (Option<(String, String)>, usize);

/// One entry that begins at `start`, and where the next one begins.
fn entry(text: &str, start: usize) -> Result<Entry, Bad> {
    let end = line_end(text, start);
    let line = &text[start..end];
    let mut key_at = start + (line.len() - line.trim_start().len());
    let body = line.trim();
    if body.is_empty() || body.starts_with('#') {
        return Ok((None, end));
    }
    if let Some(rest) = body.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])) {
        key_at += body.len() - rest.trim_start().len();
    }
    let Some(equals) = text[key_at..end].find('=').map(|n| key_at + n) else {
        return Err((key_at, "a line `KEY=VALUE` is expected".into()));
    };
    let key = text[key_at..equals].trim();
    if let Some(wrong) = wrong_name(key) {
        return Err((key_at, wrong));
    }
    let value = &text[equals + 1..end];
    let value_at = equals + 1 + (value.len() - value.trim_start_matches([' ', '\t']).len());
    let (value, next) = match text[value_at..].chars().next() {
        Some(quote @ ('"' | '\'')) => quoted(text, value_at, quote)?,
        _ => (unquoted(&text[value_at.min(end)..end]).to_owned(), end),
    };
    if value.contains('\0') {
        return Err((value_at, format!("the value of `{key}` holds a NUL character")));
    }
    Ok((Some((key.to_owned(), value)), next))
}

fn unquoted(rest: &str) -> &str {
    if rest.starts_with('#') {
        return "";
    }
    let comment = rest.match_indices('#').map(|(n, _)| n).find(|n| rest[..*n].ends_with([' ', '\t']));
    comment.map_or(rest, |n| &rest[..n]).trim_end()
}

/// The value in quotes that begin at `open`.
fn quoted(text: &str, open: usize, quote: char) -> Result<(String, usize), Bad> {
    let mut value = String::new();
    let mut chars = text[open + 1..].char_indices();
    while let Some((i, c)) = chars.next() {
        if c == quote {
            let after = open + 1 + i + 1;
            let end = line_end(text, after);
            let rest = text[after..end].trim();
            if rest.is_empty() || rest.starts_with('#') {
                return Ok((value, end));
            }
            return Err((after, "nothing but a comment may follow the closing quote".into()));
        }
        if c == '\\' && quote == '"' {
            match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, other)) => value.push(other),
                None => break,
            }
        } else {
            value.push(c);
        }
    }
    Err((open, format!("the {quote} is never closed")))
}

/// What is wrong with the name of an environment variable, if anything is.
pub(super) fn wrong_name(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("the name of an environment variable cannot be empty".into());
    }
    let bad = name.chars().find(|c| *c == '=' || c.is_whitespace() || c.is_control())?;
    Some(format!("`{}` cannot be in the name of an environment variable", bad.escape_debug()))
}

/// Where the line after the one that holds `at` begins.
fn line_end(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |n| at + n + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(text: &str) -> Vec<(String, String)> {
        let (vars, errors) = parse(text);
        assert_eq!(errors, [], "{text}");
        vars
    }

    #[test]
    fn reads_what_people_write() {
        let text = "\u{feff}# comment\n\n  A=1\r\nexport B = two words  \nC=\nD='a $x \\n' # why\n\
                    E=\"a\\n\\\"b\\\" $y\"\nF=x#y #z\nG=# nothing\nexport=odd\nH='two\nlines'\nI=a=b";
        let wanted = [
            ("A", "1"),
            ("B", "two words"),
            ("C", ""),
            ("D", "a $x \\n"),
            ("E", "a\n\"b\" $y"),
            ("F", "x#y"),
            ("G", ""),
            ("export", "odd"),
            ("H", "two\nlines"),
            ("I", "a=b"),
        ];
        assert_eq!(good(text), wanted.map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert_eq!(good(""), []);
        assert_eq!(good("\n#x"), []);
    }

    #[test]
    fn names_each_bad_line_and_reads_on() {
        let (vars, errors) = parse("A=1\nnonsense\n=x\nB C=2\nD='open\n");
        assert_eq!(vars, [("A".to_owned(), "1".to_owned())]);
        let wanted: [(usize, String); 4] = [
            (4, "a line `KEY=VALUE` is expected".into()),
            (13, "the name of an environment variable cannot be empty".into()),
            (16, "` ` cannot be in the name of an environment variable".into()),
            (24, "the ' is never closed".into()),
        ];
        assert_eq!(errors, wanted);
        let (vars, errors) = parse("A=\"x\" y\nB=é");
        assert_eq!((errors[0].0, vars[0].1.as_str()), (5, "é"));
        assert_eq!(parse("A=a\0b").1.len(), 1);
    }
}
