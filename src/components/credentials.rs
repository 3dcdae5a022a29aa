//! Where n8n's encryption key is.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::config::dotenv;
use crate::config::Secret;
use crate::formats::json::Json;

/// The variable in `.env` that n8n takes its key from.
const VARIABLE: &str = "N8N_ENCRYPTION_KEY";
/// The member of n8n's `config`, a JSON object, that holds the key where the variable is not set.
const FIELD: &str = "encryptionKey";
/// The key in the text of an environment file, `path` in messages; an empty one is none, and so is one that is taken from
/// elsewhere, as by `${NAME}`.
pub fn key_of_env(path: &Path, text: &[u8]) -> Result<Option<Secret>> {
    Ok(settings(path, text)?
        .remove(VARIABLE)
        .filter(|key| !key.is_empty() && !key.contains(ELSEWHERE))
        .map(|key| Secret::new(&key)))
}

/// How many settings an environment file holds.
pub fn count_settings(path: &Path, text: &[u8]) -> Result<usize> {
    Ok(settings(path, text)?.len())
}

/// Stands for what an environment file asks of the process that reads it.
const ELSEWHERE: &str = "\u{1}elsewhere\u{1}";

/// The settings in an environment file, read without an environment: what it asks of it is empty, or is marked where
/// it insists (`${NAME:?}`).
fn settings(path: &Path, text: &[u8]) -> Result<BTreeMap<String, String>> {
    let parse = |outer: &dyn Fn(&str) -> Option<String>| dotenv::parse(path, text, &|name| name == VARIABLE, outer);
    parse(&|_| None).or_else(|_| parse(&|_| Some(ELSEWHERE.to_owned())))
}

/// The key in the text of n8n's `config`; an empty one is none. An empty file has none either: the engine leaves
/// that in a volume where a file is mounted in its place.
pub fn key_of_config(text: &[u8]) -> Result<Option<Secret>> {
    if text.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(text).context("n8n's config is not UTF-8")?;
    let config = Json::parse(text)
        .ok()
        .filter(|config| matches!(config, Json::Object(_)))
        .context("n8n's config is not a JSON object")?;
    let key = config.get(FIELD).and_then(Json::as_str);
    Ok(key.filter(|key| !key.is_empty()).map(Secret::new))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Option<String> {
        key_of_config(text.as_bytes())
            .unwrap()
            .map(|key| key.reveal().to_owned())
    }

    #[test]
    fn the_key_in_config_is_found() {
        assert_eq!(config("{\n\t\"encryptionKey\": \"a+b/c\"\n}"), Some("a+b/c".to_owned()));
        assert_eq!(
            config(
                r#"{"a":[1,{"encryptionKey":"no"},"]"],"b":{"c":{}},"n":-1.5e3,"t":true,"encryptionKey":"x\"\\\/\u00e9\ud83d\ude00\n"} "#
            ),
            Some("x\"\\/\u{e9}\u{1f600}\n".to_owned())
        );
        assert_eq!(config(r#"{"other":{"encryptionKey":"no"}}"#), None);
        assert_eq!(config(r#"{"encryptionKey":""}"#), None);
        assert_eq!(config(r#"{"encryptionKey":7}"#), None);
        assert_eq!(config("{}"), None);
        assert_eq!(config(""), None);
    }

    #[test]
    fn what_is_no_json_object_is_refused_without_showing_it() {
        for text in [
            " ",
            "hunter2",
            "\"hunter2\"",
            "{\"encryptionKey\":\"hunter2",
            "{\"encryptionKey\" \"hunter2\"}",
            "{\"encryptionKey\":\"hunter2\"} hunter2",
            "{\"a\":\"\\u12\"}",
            "{\"a\":\"\\q\"}",
            "{\"a\":\"\\ud83d\"}",
            "{\"a\":}",
            "{\"a\":[",
        ] {
            let error = format!("{:#}", key_of_config(text.as_bytes()).unwrap_err());
            assert!(
                error.contains("not a JSON object") && !error.contains("hunter2"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_key_in_the_environment_file_is_found() {
        let path = Path::new(".env");
        let key = |text: &str| {
            key_of_env(path, text.as_bytes())
                .unwrap()
                .map(|key| key.reveal().to_owned())
        };
        assert_eq!(key("A=1\nN8N_ENCRYPTION_KEY='a b$c'\n"), Some("a b$c".to_owned()));
        assert_eq!(key("N8N_ENCRYPTION_KEY=\n"), None);
        assert_eq!(key("N8N_ENCRYPTION_KEY=${OUTSIDE}\n"), None);
        assert_eq!(key("N8N_ENCRYPTION_KEY=${OUTSIDE:?}\n"), None);
        assert_eq!(
            key("A=${OUTSIDE:?}\nN8N_ENCRYPTION_KEY=mine\n"),
            Some("mine".to_owned())
        );
        assert_eq!(count_settings(path, b"A=1\n# c\nB=2\n").unwrap(), 2);
    }
}
