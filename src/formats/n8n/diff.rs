//! What is different between two states of a workflow.

use super::content::Content;
use crate::formats::json::Json;

/// A difference: a value that is there before, after, or both times another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The name of the node; none of what belongs to no node.
    pub node: Option<String>,
    /// The way to the value, such as `parameters.assignments[0].value`; empty for the node itself.
    pub path: String,
    pub old: Option<Json>,
    pub new: Option<Json>,
}

/// All differences, in the order of the nodes, those that are gone last.
pub fn changes(old: &Content, new: &Content) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut gone: Vec<&Json> = old.nodes.iter().collect();
    for node in &new.nodes {
        let same = |key: &str| {
            let value = node.get(key)?;
            gone.iter().position(|other| other.get(key) == Some(value))
        };
        let before = same("id").or_else(|| same("name")).map(|at| gone.remove(at));
        compare(Some(name_of(node)), "", before, Some(node), &mut changes);
    }
    for node in gone {
        compare(Some(name_of(node)), "", Some(node), None, &mut changes);
    }
    for (name, before) in &old.others {
        let after = new.others.iter().find(|(other, _)| other == name);
        compare(None, name, Some(before), after.map(|(_, value)| value), &mut changes);
    }
    changes
}

fn name_of(node: &Json) -> &str {
    node.get("name").and_then(Json::as_str).unwrap_or("?")
}

/// Adds the differences between two values; a member that is null is as one that is not there.
fn compare(node: Option<&str>, path: &str, old: Option<&Json>, new: Option<&Json>, changes: &mut Vec<Change>) {
    let is_null = |value: &&Json| **value == Json::Null;
    let (old, new) = (old.filter(|value| !is_null(value)), new.filter(|value| !is_null(value)));
    match (old, new) {
        (None, None) => {}
        (Some(Json::Object(before)), Some(Json::Object(after))) => {
            let added = after
                .iter()
                .filter(|(name, _)| !before.iter().any(|(known, _)| known == name));
            for (name, _) in before.iter().chain(added) {
                let path = match path {
                    "" => name.clone(),
                    path => format!("{path}.{name}"),
                };
                let of = |value: Option<&Json>| value.and_then(|value| value.get(name)).cloned();
                compare(node, &path, of(old).as_ref(), of(new).as_ref(), changes);
            }
        }
        (Some(Json::List(before)), Some(Json::List(after))) => {
            for at in 0..before.len().max(after.len()) {
                compare(node, &format!("{path}[{at}]"), before.get(at), after.get(at), changes);
            }
        }
        (old, new) if old == new => {}
        (old, new) => changes.push(Change {
            node: node.map(str::to_owned),
            path: path.to_owned(),
            old: old.cloned(),
            new: new.cloned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(nodes: &str, settings: &str) -> Content {
        let nodes = Json::parse(nodes).unwrap().items().to_vec();
        let others = vec![("settings", Json::parse(settings).unwrap())];
        Content { nodes, others }
    }

    #[test]
    fn differences_are_named_by_node_and_way() {
        let old = content(
            r#"[{"id":"a","name":"A","parameters":{"x":1,"l":[1,2]}},{"id":"b","name":"B"},{"name":"C","k":null}]"#,
            r#"{"v":"1","w":{"a":1,"b":2}}"#,
        );
        let new = content(
            r#"[{"name":"C"},{"id":"a","name":"A2","parameters":{"l":[1,3,4],"x":1}},{"id":"d","name":"D"}]"#,
            r#"{"w":{"b":2,"a":1},"v":"2"}"#,
        );
        let told: Vec<String> = changes(&old, &new)
            .iter()
            .map(|change| {
                let text = |value: &Option<Json>| value.as_ref().map_or("-".to_owned(), Json::to_string);
                let node = change.node.as_deref().unwrap_or("-");
                format!("{node} {} {} {}", change.path, text(&change.old), text(&change.new))
            })
            .collect();
        assert_eq!(
            told,
            [
                "A2 name \"A\" \"A2\"",
                "A2 parameters.l[1] 2 3",
                "A2 parameters.l[2] - 4",
                "D  - {\"id\": \"d\", \"name\": \"D\"}",
                "B  {\"id\": \"b\", \"name\": \"B\"} -",
                "- settings.v \"1\" \"2\"",
            ]
        );
        assert_eq!(changes(&old, &old), []);
    }
}
