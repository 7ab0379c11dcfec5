//! `[queue.NAME]`: the queues, and how many runs of each there may be at once.

use std::collections::BTreeMap;

use toml::de::DeValue;

use crate::core::ids::QueueName;
use crate::core::queue::SLOTS;

use super::node::Node;

/// Every key of `[queue.NAME]`.
pub(super) const QUEUE_KEYS: &[&str] = &["slots"];

/// Most slots of a queue, or of all.
pub(super) const SLOTS_MAX: u32 = 100_000;

/// Reads all queues. There is always the one of those that name none.
pub(super) fn read(nodes: &[(&str, Node<'_>)]) -> BTreeMap<QueueName, u32> {
    let mut queues = BTreeMap::from([(QueueName::default(), SLOTS)]);
    for (name, node) in nodes {
        let name = QueueName::new(*name)
            .map_err(|error| node.key_error(format!("`{name}` is no name of a queue: {error}"), None));
        let Some(table) = node.table("a table", QUEUE_KEYS) else { continue };
        let slots = table.get("slots").and_then(|n| n.integer(0..=SLOTS_MAX)).unwrap_or(SLOTS);
        if let Ok(name) = name {
            queues.insert(name, slots);
        }
    }
    queues
}

/// Says which of these tables name a queue that there is not.
pub(super) fn check<'n>(queues: &BTreeMap<QueueName, u32>, tables: impl Iterator<Item = &'n Node<'n>>) {
    for node in tables.filter(|node| matches!(node.value, DeValue::Table(_))) {
        let entries = node.entries("a table").unwrap_or_default();
        let Some((_, named)) = entries.iter().find(|(key, _)| *key == "queue") else { continue };
        let DeValue::String(text) = named.value else { continue };
        if QueueName::new(text.as_ref()).is_ok_and(|name| !queues.contains_key(&name)) {
            let all: Vec<&str> = queues.keys().map(QueueName::as_str).collect();
            let hint = format!("there are: {}; another is made by `[queue.{text}]`", all.join(", "));
            named.error(format!("there is no queue `{text}`"), Some(hint));
        }
    }
}
