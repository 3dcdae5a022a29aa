//! What makes a workflow what it is: all that people edit, and nothing that n8n counts or keeps for itself.

use anyhow::{Context, Result};

use super::record::Record;
use crate::formats::json::Json;

/// The columns of it, beside the name and the states.
pub const CONTENT: [&str; 6] = [
    "nodes",
    "connections",
    "settings",
    "pinData",
    "nodeGroups",
    "description",
];

/// A number for the values of `columns`: where two differ, the values do.
pub fn digest(row: &Record, columns: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    // As FNV-1a, by eight bytes at a time.
    let mut add = |word: u64| hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    for name in columns {
        let mut words = row.text(name).as_bytes().chunks_exact(8);
        for word in &mut words {
            add(word.try_into().map_or(0, u64::from_le_bytes));
        }
        let rest = words.remainder();
        add(rest
            .iter()
            .fold(rest.len() as u64, |word, byte| word << 8 | u64::from(*byte)));
    }
    hash
}

/// The contents of a workflow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Its nodes.
    pub nodes: Vec<Json>,
    /// Everything else by the name of its column.
    pub others: Vec<(&'static str, Json)>,
}

impl Content {
    /// That of a row.
    ///
    /// # Errors
    /// A value is no JSON.
    pub fn of(workflow: &Record) -> Result<Self> {
        let mut content = Self::default();
        for name in CONTENT {
            let value = match workflow.get(name) {
                None => Json::Null,
                Some(text) if name == "description" => Json::text(text),
                Some(text) => Json::parse_lossy(text).with_context(|| format!("column {name}"))?,
            };
            match (name, value) {
                ("nodes", Json::List(nodes)) => content.nodes = nodes,
                (name, value) => content.others.push((name, value)),
            }
        }
        Ok(content)
    }
}
