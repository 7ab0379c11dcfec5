//! From files to a [`Config`]: includes, names over all files, dependencies, and all errors together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::core::host::Settings as HealthSettings;
use crate::core::queue;
use crate::core::spec::JobSpec;

use super::error::{Errors, Report};
use super::files::{self, Allowed};
use super::job::{self, Context, DEFAULTS_KEYS, EnvFiles, Health, JOB_KEYS, Template};
use super::node::{Node, Table};
use super::settings;
use super::source::Source;
use super::syntax::{self, Document, State};
use super::users::Accounts;
use super::{Config, dependencies, digest, glob, groups, queues};

/// Keys at the top of the main file.
pub(super) const MAIN_KEYS: &[&str] =
    &["include", "supervisor", "health", "defaults", "queue", "group", "job"];
/// Keys at the top of an included file.
const INCLUDED_KEYS: &[&str] = &["job"];

/// Reads a configuration; `accounts` says who exists.
pub(super) fn load(
    path: &Path,
    env: &BTreeMap<String, String>,
    accounts: &Accounts,
) -> Result<Config, Errors> {
    let report = Report::default();
    let Some(main) = read(path, Allowed::Stream, &report) else {
        return Err(Errors(report.finish(&[])));
    };
    if main.dir.to_str().is_none() {
        report.file(path, "the name of its directory is not UTF-8", None);
        return Err(Errors(report.finish(&[])));
    }
    let main_document = syntax::parse(&main, &report);
    let included = included(&main_document, &report);
    let mut documents = vec![main_document];
    documents.extend(included.sources.iter().map(|source| syntax::parse(source, &report)));

    let context = Context { env, accounts, report: &report, home: &main.dir };
    let mut env_files = EnvFiles::default();
    let Resolved { supervisor, health, queues, jobs } =
        resolve(&context, &documents, included.complete, &mut env_files);

    let sources = || std::iter::once(&main).chain(&included.sources);
    let called: Vec<PathBuf> =
        std::iter::once(main.path.clone()).chain(included.called.iter().cloned()).collect();
    let mut texts: Vec<(PathBuf, &str)> = sources().map(|s| (s.full_path(), s.text.as_str())).collect();
    texts.extend(env_files.texts.iter().map(|(path, text)| (path.clone(), text.as_str())));
    let digest = digest::of(&texts);
    let files = texts.into_iter().map(|(path, _)| path).collect();
    let errors = report.finish(&called);
    if errors.is_empty() {
        Ok(Config { supervisor, health, queues, jobs, files, digest })
    } else {
        Err(Errors(errors))
    }
}

/// Reads one file; what is wrong with it is reported.
fn read(path: &Path, allowed: Allowed, report: &Report) -> Option<Source> {
    match files::read(path, allowed) {
        Ok(text) => Some(syntax::patch(Source::new(path, text))),
        Err(unread) => {
            report.file(path, format!("cannot read the file: {}", unread.message), unread.at);
            None
        }
    }
}

/// The top of a file as a node.
fn root<'a>(document: &'a Document<'a>, report: &'a Report) -> Node<'a> {
    Node {
        source: document.source,
        report,
        key: String::new(),
        key_span: 0..0,
        span: 0..0,
        value: &document.root,
    }
}

/// The included files.
#[derive(Default)]
struct Included {
    /// Those that could be read.
    sources: Vec<Source>,
    /// All of them, in order.
    called: Vec<PathBuf>,
    /// Whether every one could be read.
    complete: bool,
}

/// Reads the included files.
fn included(main: &Document<'_>, report: &Report) -> Included {
    let mut included = Included::default();
    if main.state == State::Swallowed {
        return included;
    }
    let before = report.count();
    let top = root(main, report).entries("a table").unwrap_or_default();
    let list = top.into_iter().find(|(key, _)| *key == "include");
    let expected = "a list of paths with wildcards";
    let mut seen: BTreeSet<PathBuf> = BTreeSet::new();
    seen.extend(std::fs::canonicalize(&main.source.path));
    for node in list.and_then(|(_, node)| node.list(expected)).unwrap_or_default() {
        for path in matching(&node) {
            let same = std::fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
            if seen.insert(same) {
                included.sources.extend(read(&path, Allowed::Regular, report));
                included.called.push(path);
            }
        }
    }
    included.complete = report.count() == before;
    included
}

/// The files that one pattern of `include` names, called as people would call them: relative patterns stay
/// relative to what the main file was called.
fn matching(node: &Node<'_>) -> Vec<PathBuf> {
    let Some(pattern) = node.string("a path with wildcards") else { return Vec::new() };
    if pattern.is_empty() {
        node.error("the path is empty", None);
        return Vec::new();
    }
    let base = node.source.path.parent().unwrap_or(Path::new(""));
    let found = glob::expand(&node.source.dir, pattern);
    match found {
        Ok(paths) if paths.is_empty() && !glob::has_wildcard(pattern) => {
            node.error(format!("the file `{pattern}` does not exist"), None);
            Vec::new()
        }
        Ok(paths) => {
            let call = |path: PathBuf| match path.strip_prefix(&node.source.dir) {
                Ok(short) => base.join(short),
                Err(_) => path,
            };
            paths.into_iter().map(call).collect()
        }
        Err(e) => {
            node.error(format!("cannot look for `{pattern}`: {e}"), None);
            Vec::new()
        }
    }
}

/// What the files say.
struct Resolved {
    supervisor: settings::SupervisorSettings,
    health: HealthSettings,
    queues: queue::Settings,
    jobs: Vec<JobSpec>,
}

/// Reads what the files say.
fn resolve(
    context: &Context<'_>,
    documents: &[Document<'_>],
    complete: bool,
    env_files: &mut EnvFiles,
) -> Resolved {
    let mut queue_nodes: Vec<(&str, Node<'_>)> = Vec::new();
    let mut supervisor = settings::SupervisorSettings::default();
    let mut health = Health::default();
    let mut defaults: Option<Table<'_>> = None;
    let mut defaults_node: Option<Node<'_>> = None;
    let mut group_nodes: Vec<(&str, Node<'_>)> = Vec::new();
    let mut job_nodes: Vec<(&str, Node<'_>)> = Vec::new();
    for (i, document) in documents.iter().enumerate() {
        if document.state == State::Swallowed {
            continue;
        }
        let node = root(document, context.report);
        let Some(top) = top(&node, i == 0) else { continue };
        if i == 0 {
            supervisor = top.get("supervisor").map(|n| settings::read(context, &n)).unwrap_or_default();
            health = top.get("health").map(|n| job::read_health(context, &n)).unwrap_or_default();
            defaults_node = top.get("defaults");
            defaults = defaults_node.as_ref().and_then(defaults_table);
            let queues = top.get("queue").and_then(|n| n.entries("tables [queue.NAME]"));
            queue_nodes = queues.unwrap_or_default();
            let groups = top.get("group").and_then(|n| n.entries("tables [group.NAME]"));
            group_nodes = groups.unwrap_or_default();
        }
        let jobs = top.get("job").and_then(|n| n.entries("tables [job.NAME]"));
        job_nodes.extend(jobs.unwrap_or_default());
    }
    if let Some(defaults) = &defaults {
        job::check_defaults(context, defaults);
    }
    let queues = queues::read(&queue_nodes);
    queues::check(&queues, job_nodes.iter().map(|(_, node)| node).chain(&defaults_node));
    let mut templates: Vec<Template<'_>> = Vec::new();
    let mut first: BTreeMap<&str, Node<'_>> = BTreeMap::new();
    for (name, node) in &job_nodes {
        let template = job::read(context, name, node, defaults.as_ref());
        if let Some(first) = first.get(name) {
            let at = first.source.position(first.key_span.start);
            let place = format!("{}:{}:{}", first.source.path.display(), at.line, at.column);
            node.key_error(format!("duplicate name `{name}`; the first is at {place}"), None);
        } else {
            first.insert(name, node.clone());
            templates.extend(template);
        }
    }
    // What a broken file would have named is not missed.
    let complete = complete && documents.iter().all(|d| d.state != State::Swallowed);
    let names: BTreeSet<&str> = first.keys().copied().collect();
    let needs = dependencies::resolve(context.report, &templates, &names, complete);
    let lookup = dependencies::Resolver::new(&templates, &names, complete);
    let groups = groups::resolve(context.report, &group_nodes, &lookup);
    let mut jobs = Vec::new();
    for (template, needs) in templates.iter().zip(&needs) {
        for mut spec in template.expand(context, env_files) {
            spec.depends_on = needs.of(&spec.name);
            spec.in_group = groups.of(&spec.name).map(Box::new);
            jobs.push(spec);
        }
    }
    if complete {
        health.check_jobs(&jobs);
    }
    let queues = queue::Settings { slots: queues, all: supervisor.slots };
    Resolved { supervisor, health: health.settings, queues, jobs }
}

/// `[defaults]`. What cannot be one is said to be so.
fn defaults_table<'a>(node: &Node<'a>) -> Option<Table<'a>> {
    let only_job = |name: &str| JOB_KEYS.contains(&name) && !DEFAULTS_KEYS.contains(&name);
    let (foreign, own): (Vec<_>, Vec<_>) =
        node.entries("a table")?.into_iter().partition(|(name, _)| only_job(name));
    for (name, entry) in &foreign {
        entry.key_error(format!("`{name}` cannot be a default; it belongs in a [job.NAME]"), None);
    }
    Some(Table::new(own, DEFAULTS_KEYS))
}

/// The top table of a file. What belongs to the main file alone is said to be so.
fn top<'a>(node: &Node<'a>, main: bool) -> Option<Table<'a>> {
    if main {
        return node.table("a table", MAIN_KEYS);
    }
    let (own, foreign): (Vec<_>, Vec<_>) = node
        .entries("a table")?
        .into_iter()
        .partition(|(name, _)| !MAIN_KEYS.contains(name) || *name == "job");
    for (name, entry) in &foreign {
        entry.key_error(format!("`{name}` belongs in the main file"), None);
    }
    Some(Table::new(own, INCLUDED_KEYS))
}
