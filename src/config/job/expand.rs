//! From a template to the jobs it stands for: one, or one for each instance; and what is looked up on the
//! machine for each: directories, files, users.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::core::spec::{JobSpec, Stdin, StopAct};

use super::super::env_file;
use super::super::files;
use super::super::node::Node;
use super::super::source::Source;
use super::super::substitute::instantiate;
use super::super::users::Account;
use super::{Context, Template};

/// Environment files that have been read, so that instances do not read the same one again.
#[derive(Default)]
pub(in super::super) struct EnvFiles {
    read: BTreeMap<PathBuf, Option<Vec<(String, String)>>>,
    /// Their texts, in the order of reading, for the digest.
    pub texts: Vec<(PathBuf, String)>,
}

impl<'a> Template<'a> {
    /// The jobs; those of a job with an error end at the first instance that has one.
    pub(in super::super) fn expand(&self, context: &Context<'_>, files: &mut EnvFiles) -> Vec<JobSpec> {
        let Some(count) = self.instances else {
            let mut spec = self.spec.clone();
            self.finish(&mut spec, 0, context, files);
            return vec![spec];
        };
        let before = context.report.count();
        let mut specs = Vec::new();
        for n in 1..=count {
            let mut spec = self.instance(n);
            self.finish(&mut spec, n, context, files);
            specs.push(spec);
            if context.report.count() > before {
                break;
            }
        }
        specs
    }

    /// The spec of instance `n`: its number in every text.
    fn instance(&self, n: u32) -> JobSpec {
        let put = |text: &mut String| *text = instantiate(text, n);
        let mut spec = self.spec.clone();
        spec.name = self.name.instance(n);
        spec.command.iter_mut().for_each(put);
        let texts = [&mut spec.cwd, &mut spec.user, &mut spec.group, &mut spec.output.dir];
        texts.into_iter().flatten().for_each(put);
        for step in &mut spec.stop {
            if let StopAct::Command(argv) = &mut step.act {
                argv.iter_mut().for_each(put);
            }
        }
        if let Stdin::File(path) = &mut spec.stdin {
            put(path);
        }
        spec.resume_command.iter_mut().flatten().for_each(put);
        if let Some(hooks) = &mut spec.hooks {
            super::hooks::instantiate(hooks, put);
        }
        if let Some(watch) = &mut spec.watch {
            super::watch::instantiate(watch, put);
        }
        spec
    }

    /// Puts the environment together and looks up what must exist.
    fn finish(&self, spec: &mut JobSpec, n: u32, context: &Context<'_>, files: &mut EnvFiles) {
        let put = |(name, value): (&String, &String)| (name.clone(), instantiate(value, n));
        spec.env = self.settings.default_env.iter().map(put).collect();
        for (path, node) in &self.env_files {
            let path = PathBuf::from(instantiate(&path.to_string_lossy(), n));
            spec.env.extend(files.get(&path, node).into_iter().flatten().cloned());
        }
        spec.env.extend(self.settings.own_env.iter().map(put));
        match (&spec.cwd, &self.settings.cwd) {
            (Some(cwd), Some(node)) => check_directory(cwd, node),
            (None, None) => spec.cwd = context.home.to_str().map(str::to_owned),
            _ => {}
        }
        if let (Stdin::File(path), Some(node)) = (&spec.stdin, &self.settings.stdin) {
            check_file(path, node);
        }
        let accounts = [
            (Account::User, &spec.user, &self.settings.user),
            (Account::Group, &spec.group, &self.settings.group),
        ];
        for (what, name, node) in accounts {
            if let (Some(name), Some(node)) = (name, node)
                && let Err(bad) = context.accounts.check(what, name)
            {
                node.bad(bad);
            }
        }
    }
}

impl EnvFiles {
    /// The variables of a file; `None` when it has errors, which are reported once.
    fn get(&mut self, path: &Path, node: &Node<'_>) -> Option<&Vec<(String, String)>> {
        if !self.read.contains_key(path) {
            let vars = self.load(path, node);
            self.read.insert(path.to_owned(), vars);
        }
        self.read.get(path).and_then(Option::as_ref)
    }

    fn load(&mut self, path: &Path, node: &Node<'_>) -> Option<Vec<(String, String)>> {
        let text = match files::read(path, files::Allowed::Regular) {
            Ok(text) => text,
            Err(why) => {
                node.error(format!("cannot read `{}`: {}", path.display(), why.message), None);
                return None;
            }
        };
        let (vars, bad) = env_file::parse(&text);
        self.texts.push((path.to_owned(), text.clone()));
        let source = Source { show: false, ..Source::new(path, text) };
        for (at, message) in &bad {
            node.report.at(&source, &(*at..*at), "", message.as_str(), None);
        }
        bad.is_empty().then_some(vars)
    }
}

/// A directory that we may not look into is left to the job, which may run as somebody else.
fn check_directory(path: &str, node: &Node<'_>) {
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => node.error(format!("`{path}` is not a directory"), None),
        Err(e) if is_missing(&e) => node.error(format!("the directory `{path}` does not exist"), None),
        Err(_) => {}
    }
}

fn check_file(path: &str, node: &Node<'_>) {
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => node.error(format!("`{path}` is a directory"), None),
        Err(e) if is_missing(&e) => node.error(format!("the file `{path}` does not exist"), None),
        Ok(_) | Err(_) => {}
    }
}

fn is_missing(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename
    )
}
