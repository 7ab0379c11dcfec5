//! Selectors: how people name the jobs they mean.
//!
//! | text | jobs |
//! |---|---|
//! | `web` | the job `web`, or all its instances `web:1`, `web:2`, … |
//! | `web:2` | that instance |
//! | `web:*` | all instances of `web` |
//! | `w*`, `web-?` | names that match the pattern; `*` stands for any text, `?` for one character |
//! | `all` | every job |
//!
//! A selector that matches nothing is an error, so that a typing mistake never looks like success.

use strsim::osa_distance;

use super::ids::JobName;

/// A selector that matches no job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no job matches {selector:?}{}", hint(.closest))]
pub struct NoMatch {
    /// What was asked for.
    pub selector: String,
    /// Known names that look like it, the most alike first.
    pub closest: Vec<JobName>,
}

fn hint(closest: &[JobName]) -> String {
    if closest.is_empty() {
        return String::new();
    }
    let names: Vec<String> = closest.iter().map(|name| format!("{:?}", name.as_str())).collect();
    format!("; did you mean {}?", names.join(" or "))
}

/// How many similar names an error mentions.
const CLOSEST_MAX: usize = 3;

/// The jobs among `known` that `selector` means, in the order of `known`.
///
/// # Errors
/// [`NoMatch`] if there are none. `all` is never an error: an instance without jobs is a valid one.
pub fn select<'a>(
    selector: &str,
    known: impl IntoIterator<Item = &'a JobName> + Clone,
) -> Result<Vec<JobName>, NoMatch> {
    let found: Vec<JobName> =
        known.clone().into_iter().filter(|name| matches(selector, name)).cloned().collect();
    if found.is_empty() && selector != "all" {
        return Err(NoMatch { selector: selector.to_owned(), closest: closest(selector, known) });
    }
    Ok(found)
}

/// The jobs that any of `selectors` means: each once, in the order of names.
///
/// # Errors
/// The first selector that matches nothing.
pub fn select_all<'a, S: AsRef<str>>(
    selectors: &[S],
    known: impl IntoIterator<Item = &'a JobName> + Clone,
) -> Result<Vec<JobName>, NoMatch> {
    let mut all = std::collections::BTreeSet::new();
    for selector in selectors {
        all.extend(select(selector.as_ref(), known.clone())?);
    }
    Ok(all.into_iter().collect())
}

/// Whether `selector` means `name`.
#[must_use]
pub fn matches(selector: &str, name: &JobName) -> bool {
    if selector == "all" {
        return true;
    }
    if let Some(base) = selector.strip_suffix(":*") {
        return glob(base, name.base());
    }
    glob(selector, name.as_str()) || selector == name.base()
}

/// Whether `text` matches `pattern`, where `*` is any text and `?` one character.
///
/// Linear in memory and at most quadratic in time: on a mismatch only the latest `*` is widened.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    t = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// Known names that look like `selector`: few edits away, or one contained in the other.
fn closest<'a>(selector: &str, known: impl IntoIterator<Item = &'a JobName>) -> Vec<JobName> {
    let wanted: String = selector.chars().filter(|c| !"*?".contains(*c)).collect::<String>().to_lowercase();
    // Nothing to compare with, or a text so long that no name is near it and the table would be large.
    if wanted.is_empty() || wanted.len() > 2 * JobName::MAX_BYTES {
        return Vec::new();
    }
    let limit = (wanted.len() / 3).max(1);
    let mut found: Vec<(usize, &JobName)> = known
        .into_iter()
        .filter_map(|name| {
            let have = name.as_str().to_lowercase();
            let edits = osa_distance(&wanted, &have).min(osa_distance(&wanted, &name.base().to_lowercase()));
            let contained = wanted.len() >= 2 && (have.contains(&wanted) || wanted.contains(&have));
            (edits <= limit || contained).then_some((edits, name))
        })
        .collect();
    found.sort();
    found.into_iter().take(CLOSEST_MAX).map(|(_, name)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<JobName> {
        list.iter().map(|n| JobName::new(*n).unwrap()).collect()
    }

    fn pick(selector: &str) -> Vec<String> {
        let known = names(&["api", "db", "ticker", "web:1", "web:2", "web-admin"]);
        select(selector, &known).map_or_else(
            |e| e.closest.iter().map(|n| format!("~{n}")).collect(),
            |v| v.iter().map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn a_plain_name_is_itself_or_all_its_instances() {
        assert_eq!(pick("api"), ["api"]);
        assert_eq!(pick("web"), ["web:1", "web:2"]);
        assert_eq!(pick("web:2"), ["web:2"]);
    }

    #[test]
    fn patterns_match_names_and_bases() {
        assert_eq!(pick("web:*"), ["web:1", "web:2"]);
        assert_eq!(pick("web*"), ["web:1", "web:2", "web-admin"]);
        assert_eq!(pick("?b"), ["db"]);
        assert_eq!(pick("db:*"), ["db"]);
        assert_eq!(pick("*").len(), 6);
        assert_eq!(pick("all").len(), 6);
    }

    #[test]
    fn nothing_found_names_what_is_near() {
        assert_eq!(pick("tiker"), ["~ticker"]);
        assert_eq!(pick("aip"), ["~api"]);
        assert_eq!(pick("admin"), ["~web-admin"]);
        assert_eq!(pick("zzzz"), Vec::<String>::new());
        assert_eq!(pick(""), Vec::<String>::new());
        let error = select("tiker", &names(&["ticker"])).unwrap_err();
        assert_eq!(error.to_string(), "no job matches \"tiker\"; did you mean \"ticker\"?");
    }

    #[test]
    fn all_of_nothing_is_fine() {
        assert_eq!(select("all", &names(&[])), Ok(Vec::new()));
        assert!(select("*", &names(&[])).is_err());
    }

    #[test]
    fn several_selectors_give_each_job_once() {
        let known = names(&["a", "b", "c"]);
        assert_eq!(select_all(&["b", "*"], &known).unwrap(), names(&["a", "b", "c"]));
        assert_eq!(select_all(&["a", "x1"], &known).unwrap_err().selector, "x1");
    }

    #[test]
    fn a_pattern_of_many_stars_ends_quickly() {
        let name = JobName::new("a".repeat(128)).unwrap();
        assert!(!matches(&format!("{}b", "a*".repeat(500)), &name));
    }
}
