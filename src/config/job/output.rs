//! What becomes of what a job writes, and what it reads.

use toml::de::DeValue;

use crate::core::spec::{JobSpec, OnLogStall, OutputMode, Stdin};

use super::super::node::Node;
use super::super::units;
use super::{Reader, Settings};

pub(in super::super) const OUTPUT_KEYS: &[&str] =
    &["mode", "max_size", "keep", "compress", "on_log_stall", "dir"];

impl<'a> Reader<'a, '_> {
    /// Reads the keys of this file.
    pub(super) fn capture(&self, spec: &mut JobSpec, settings: &mut Settings<'a>) {
        let layers = self.layers.nested("output", OUTPUT_KEYS);
        let modes =
            [("merged", OutputMode::Merged), ("separate", OutputMode::Separate), ("none", OutputMode::None)];
        let output = &mut spec.output;
        output.mode = layers.get("mode").and_then(|n| n.choice(&modes)).unwrap_or_default();
        output.max_size = layers.get("max_size").and_then(|n| size(&n)).unwrap_or(output.max_size);
        output.keep = layers.get("keep").and_then(|n| n.integer(0..=u32::MAX)).unwrap_or(output.keep);
        output.compress = layers.get("compress").and_then(|n| n.boolean()).unwrap_or(output.compress);
        let stalls = [("block", OnLogStall::Block), ("drop", OnLogStall::Drop)];
        output.on_log_stall = layers.get("on_log_stall").and_then(|n| n.choice(&stalls)).unwrap_or_default();
        output.dir = layers.get("dir").and_then(|n| self.path(&n));
        if let Some((stdin, place)) = self.layers.get("stdin").and_then(|n| self.stdin(&n)) {
            spec.stdin = stdin;
            settings.stdin = place;
        }
    }

    /// What it reads, and the place of the path if that is a file.
    fn stdin(&self, node: &Node<'a>) -> Option<(Stdin, Option<Node<'a>>)> {
        let form = "write \"null\", \"keep\" or { file = \"path\" }";
        match node.value {
            DeValue::String(_) => {
                let words = [("null", false), ("keep", true)];
                let keep = node.choice(&words)?;
                Some((if keep { Stdin::Keep } else { Stdin::Null }, None))
            }
            DeValue::Table(_) => {
                let Some(file) = node.table("a table", &["file"])?.get("file") else {
                    node.missing("`file`", Some(form.into()));
                    return None;
                };
                Some((Stdin::File(self.path(&file)?), Some(file)))
            }
            _ => {
                node.wrong_type("\"null\", \"keep\" or a table { file }", Some(form.into()));
                None
            }
        }
    }
}

/// A number of bytes, with or without a unit.
pub(super) fn size(node: &Node<'_>) -> Option<u64> {
    match node.value {
        DeValue::String(text) => units::size(text).map_err(|bad| node.bad(bad)).ok(),
        DeValue::Integer(_) => node.integer(0..=i64::MAX).and_then(|n| u64::try_from(n).ok()),
        _ => {
            node.wrong_type("a size", Some("write it as in \"50MB\" or \"64KiB\"".into()));
            None
        }
    }
}
