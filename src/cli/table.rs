//! Aligned columns.

/// Lays out rows under headings, two spaces between columns. The last column is cut so that lines fit
/// `width`; if there is no room for it at all, it is left out.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>], width: Option<usize>) -> Vec<Vec<String>> {
    let columns = headings.len();
    let count = |text: &str| text.chars().count();
    let wide: Vec<usize> = (0..columns)
        .map(|c| rows.iter().map(|row| count(&row[c])).chain([count(headings[c])]).max().unwrap_or(0))
        .collect();
    let before_last: usize = wide.iter().take(columns.saturating_sub(1)).map(|w| w + 2).sum();
    let room = width.map(|width| width.saturating_sub(before_last));
    // Less than this says nothing.
    let keep_last = room.is_none_or(|room| room >= 8);
    let shown = if keep_last { columns } else { columns - 1 };
    let head: Vec<String> = headings.iter().map(|h| (*h).to_owned()).collect();
    std::iter::once(&head)
        .chain(rows)
        .map(|row| {
            (0..shown)
                .map(|c| match (c + 1 == columns, room) {
                    (true, Some(room)) => cut(&row[c], room),
                    (true, None) => row[c].clone(),
                    (false, _) if c + 1 == shown => row[c].clone(),
                    (false, _) => format!("{}{}", row[c], " ".repeat(wide[c] + 2 - count(&row[c]))),
                })
                .collect()
        })
        .collect()
}

/// The text in at most `room` columns.
pub(crate) fn cut(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(room.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(width: Option<usize>) -> Vec<String> {
        let rows = [vec!["web".to_owned(), "1".to_owned(), "a long remark".to_owned()]];
        table(&["NAME", "PID", "NOTE"], &rows, width).iter().map(|cells| cells.concat()).collect()
    }

    #[test]
    fn columns_are_aligned_and_the_last_one_gives_way() {
        assert_eq!(lines(None), ["NAME  PID  NOTE", "web   1    a long remark"]);
        assert_eq!(lines(Some(20)), ["NAME  PID  NOTE", "web   1    a long r…"]);
        assert_eq!(lines(Some(15)), ["NAME  PID", "web   1"]);
        assert_eq!(lines(Some(0)), ["NAME  PID", "web   1"]);
    }
}
