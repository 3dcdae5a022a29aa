//! n8n's own image, by which a drill asks n8n itself.

use std::time::Duration;

use anyhow::Result;

use super::credentials;
use crate::app::App;
use crate::config::Secret;
use crate::engine::{Docker, Exec};
use crate::formats::json::Json;
use crate::store::manifest::Point;

/// How the facts of a point begin that tell which image n8n's containers were made from.
pub const IMAGE_FACT: &str = "n8n.image.";
/// Prints n8n's `config`, or the key in the file that its environment names.
const READ_KEY: &str = r#"if [ -r "${N8N_ENCRYPTION_KEY_FILE-}" ]; then
  printf 'key '; cat -- "$N8N_ENCRYPTION_KEY_FILE"
else
  printf 'config '; cat -- "${N8N_USER_FOLDER:-$HOME}/.n8n/config"
fi"#;
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// An image of n8n that is on this host.
#[derive(Clone, Debug)]
pub struct N8nImage {
    /// Its ID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// n8n's version, as far as the image tells.
    pub version: Option<String>,
    /// The container of the stack that was made from it.
    pub container: Option<String>,
    /// The variables of that container.
    pub environment: Vec<(String, String)>,
}

/// The image of the stack's n8n: that of its containers, else the one that the recovery point names, where it is here.
pub fn find(app: &App, docker: &Docker, point: &Point) -> Result<Option<N8nImage>> {
    for container in app.n8n_containers(docker)? {
        let config = docker.container_config(&container.name)?;
        let environment = environment(&config);
        if is_n8n(&container.image) || runs_n8n(&config, &environment) {
            return Ok(Some(N8nImage {
                id: container.image_id,
                name: container.image,
                version: Some(container.version).filter(|version| !version.is_empty()),
                container: Some(container.name),
                environment,
            }));
        }
    }
    for (_, fact) in point.facts(IMAGE_FACT) {
        let (name, id) = fact.rsplit_once(' ').unwrap_or((fact, fact));
        if let Some(image) = is_n8n(name).then(|| of_name(docker, id)).transpose()?.flatten() {
            let name = name.to_owned();
            return Ok(Some(N8nImage { name, ..image }));
        }
    }
    Ok(None)
}

/// An image by its name or ID; none when it is not here.
pub fn of_name(docker: &Docker, name: &str) -> Result<Option<N8nImage>> {
    let image = docker.image_version(name)?;
    Ok(image.map(|(id, version)| N8nImage {
        id,
        name: name.to_owned(),
        version,
        container: None,
        environment: Vec::new(),
    }))
}

impl N8nImage {
    /// n8n with its version, for messages.
    pub fn title(&self) -> String {
        match &self.version {
            Some(version) => format!("n8n {version}"),
            None => format!("n8n ({})", self.name),
        }
    }

    /// The key that the running n8n uses; none where that cannot be found out.
    pub fn live_key(&self, docker: &Docker) -> Option<Secret> {
        let set = |name: &str| {
            self.environment
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.as_str())
        };
        if let Some(key) = set("N8N_ENCRYPTION_KEY").filter(|key| !key.is_empty()) {
            return Some(Secret::new(key));
        }
        let docker = docker.clone().with_stall(PATIENCE);
        let ask = docker.exec(self.container.as_deref()?, Exec::default(), &["sh", "-c", READ_KEY]);
        let output = docker
            .answer("sh", ask, None)
            .ok()
            .filter(|output| output.success)?
            .text();
        match output.split_once(' ')? {
            ("config", text) => credentials::key_of_config(text.as_bytes()).ok().flatten(),
            (_, key) => Some(Secret::new(key.trim())),
        }
    }
}

/// The variables in what the engine tells of a container.
fn environment(config: &Json) -> Vec<(String, String)> {
    let pairs = texts(config, "Env").into_iter().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn texts<'a>(config: &'a Json, name: &str) -> Vec<&'a str> {
    match config.get(name) {
        Some(Json::List(items)) => items.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Whether an image is n8n's by its name, whatever its registry and tag.
fn is_n8n(image: &str) -> bool {
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split([':', '@']).next() == Some("n8n")
}

/// Whether a container of an image of another name starts n8n: one that was built on n8n's.
fn runs_n8n(config: &Json, environment: &[(String, String)]) -> bool {
    let is_told = environment
        .iter()
        .any(|(name, _)| name.starts_with("DB_") || name.starts_with("N8N_"));
    let starts = |word: &&str| *word == "n8n" || word.ends_with("/n8n") || word.ends_with("docker-entrypoint.sh");
    let words = [texts(config, "Entrypoint"), texts(config, "Cmd")].concat();
    is_told && words.iter().any(starts) && !words.iter().any(|word| word.contains("postgres"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n8n_is_known_by_its_image_or_by_what_it_starts() {
        for name in [
            "n8n",
            "n8nio/n8n",
            "docker.n8n.io/n8nio/n8n:2.40.7",
            "host:5000/n8n@sha256:1",
        ] {
            assert!(is_n8n(name), "{name}");
        }
        for name in ["n8nio/runners:2.40.7", "busybox", "n8n/postgres", "my-n8n:1"] {
            assert!(!is_n8n(name), "{name}");
        }
        let config = |entrypoint: &str, cmd: &str, env: &str| {
            Json::parse(&format!(
                r#"{{"Env":["PATH=/bin","{env}"],"Entrypoint":{entrypoint},"Cmd":{cmd}}}"#
            ))
            .unwrap()
        };
        let runs = |config: Json| runs_n8n(&config, &environment(&config));
        assert!(runs(config(
            r#"["tini","--","/docker-entrypoint.sh"]"#,
            "null",
            "N8N_PORT=1"
        )));
        assert!(runs(config("null", r#"["n8n","worker"]"#, "DB_TYPE=postgresdb")));
        assert!(!runs(config("null", r#"["n8n","worker"]"#, "A=N8N_")));
        assert!(!runs(config(r#"["sleep"]"#, "null", "N8N_PORT=1")));
    }
}
