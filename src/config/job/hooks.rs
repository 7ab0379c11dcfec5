//! Commands around the runs of a job.

use toml::de::DeValue;

use crate::core::hook::{Hook, Hooks, TIMEOUT, When};
use crate::core::spec::JobSpec;

use super::super::node::Node;
use super::Reader;
use super::policy::some_time;

pub(in super::super) const HOOKS: &[&str] =
    &["before_start", "after_start", "before_stop", "after_exit", "on_frozen", "on_fatal"];
pub(in super::super) const HOOK_KEYS: &[&str] = &["command", "timeout"];

impl<'a> Reader<'a, '_> {
    /// Reads the keys of this file.
    pub(super) fn hooks(&self, spec: &mut JobSpec) {
        let layers = self.layers.nested("hooks", HOOKS);
        let mut hooks = Hooks::default();
        for when in When::ALL {
            *hooks.at(when) = layers.get(when.as_str()).and_then(|n| self.hook(&n));
        }
        spec.hooks = (hooks != Hooks::default()).then(|| Box::new(hooks));
    }

    fn hook(&self, node: &Node<'a>) -> Option<Hook> {
        let DeValue::Table(_) = node.value else {
            return self.argv(node, false).map(|command| Hook { command, timeout: TIMEOUT });
        };
        let table = node.table("a command or a table { command, timeout }", HOOK_KEYS)?;
        let timeout = table.get("timeout").map_or(Some(TIMEOUT), |n| some_time(&n));
        let Some(command) = table.get("command") else {
            if !table.has_slip_of("command") {
                node.missing("`command`", None);
            }
            return None;
        };
        Some(Hook { command: self.argv(&command, false)?, timeout: timeout? })
    }
}

/// Puts the number of an instance into every text.
pub(super) fn instantiate(hooks: &mut Hooks, put: impl Fn(&mut String)) {
    for when in When::ALL {
        hooks.at(when).iter_mut().flat_map(|hook| &mut hook.command).for_each(&put);
    }
}
