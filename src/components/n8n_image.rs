//! n8n's own image, by which a drill asks n8n itself.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{bail, Result};

use super::credentials;
use crate::app::App;
use crate::config::Secret;
use crate::engine::{Container, Docker, Exec};
use crate::process::hinted;
use crate::stack::discovery::{is_n8n, is_n8n_image};
use crate::store::inventory;
use crate::store::manifest::Point;

/// How the facts of a point begin that tell which image n8n's containers were made from.
pub const IMAGE_FACT: &str = "n8n.image.";
/// As [`IMAGE_FACT`], of the version.
const VERSION_FACT: &str = "n8n.version.";
/// As [`IMAGE_FACT`], of its name and digest in the registry that it came from: what `docker pull` takes.
const DIGEST_FACT: &str = "n8n.digest.";
/// The digest of an image that came from no registry.
const NO_DIGEST: &str = "none";
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
    pub environment: BTreeMap<String, String>,
}

/// What a recovery point records of the images that n8n's containers were made from. A digest that the last one has of the
/// same image is not asked for again: that takes the engine a good part of a small backup.
pub fn facts(app: &App, docker: &Docker, containers: &[Container]) -> Vec<(String, String)> {
    let points = inventory::list(&app.store).unwrap_or_default();
    let last = points.into_iter().rev().find_map(|(_, point)| point.ok());
    let mut digests: BTreeMap<String, Option<String>> = last.as_ref().map(digests).unwrap_or_default();
    let mut facts = Vec::new();
    for container in containers {
        let (name, id) = (&container.name, &container.image_id);
        facts.push((format!("{IMAGE_FACT}{name}"), format!("{} {id}", container.image)));
        let digest = digests.entry(id.clone()).or_insert_with(|| {
            let image = docker.describe_image(id).ok().flatten()?;
            Some(image.digest.unwrap_or_else(|| NO_DIGEST.to_owned()))
        });
        facts.extend(digest.clone().map(|digest| (format!("{DIGEST_FACT}{name}"), digest)));
        if !container.version.is_empty() {
            facts.push((format!("{VERSION_FACT}{name}"), container.version.clone()));
        }
    }
    facts
}

/// The digests of images that a recovery point has, by the images' IDs.
fn digests(point: &Point) -> BTreeMap<String, Option<String>> {
    let images = point.facts(IMAGE_FACT).filter_map(|(container, image)| {
        let (_, id) = image.rsplit_once(' ')?;
        let digest = point.fact(&format!("{DIGEST_FACT}{container}"))?;
        Some((id.to_owned(), Some(digest.to_owned())))
    });
    images.collect()
}

/// The images that a recovery point names: each with its digest, where it came from a registry, which gives the same one
/// again after its tag has moved.
pub fn named(point: &Point) -> Vec<String> {
    let images = point.facts(IMAGE_FACT).map(|(container, image)| {
        let name = image.rsplit_once(' ').map_or(image, |(name, _)| name);
        match point.fact(&format!("{DIGEST_FACT}{container}")) {
            Some(digest) if digest != NO_DIGEST => format!("{name} ({digest})"),
            _ => image.to_owned(),
        }
    });
    let mut images: Vec<String> = images.collect();
    images.dedup();
    images
}

/// The image of the stack's n8n: that of its containers, else the one that the recovery point names, where it is here.
pub fn find(app: &App, docker: &Docker, point: &Point) -> Result<Option<N8nImage>> {
    for container in app.n8n_containers(docker)? {
        if let Some(described) = docker.describe(&[&container.name])?.pop().filter(is_n8n) {
            return Ok(Some(N8nImage {
                id: container.image_id,
                name: container.image,
                version: Some(container.version).filter(|version| !version.is_empty()),
                container: Some(container.name),
                environment: described.env,
            }));
        }
    }
    for (_, fact) in point.facts(IMAGE_FACT) {
        let (name, id) = fact.rsplit_once(' ').unwrap_or((fact, fact));
        if let Some(image) = is_n8n_image(name).then(|| of_name(docker, id)).transpose()?.flatten() {
            let name = name.to_owned();
            return Ok(Some(N8nImage { name, ..image }));
        }
    }
    Ok(None)
}

/// An image by its name or ID; none when it is not here.
pub fn of_name(docker: &Docker, name: &str) -> Result<Option<N8nImage>> {
    let image = docker.describe_image(name)?;
    Ok(image.map(|image| N8nImage {
        id: image.id,
        name: name.to_owned(),
        version: image.version,
        container: None,
        environment: BTreeMap::new(),
    }))
}

/// Compares the n8n that will run on a recovery point with the one that it was made of. Gives what to warn of.
///
/// # Errors
/// When it is older: its migrations go forward only, so it would not start, or damage what it does not know.
pub fn check_version(app: &App, docker: &Docker, point: &Point) -> Result<Option<String>> {
    let Some(made_by) = made_by(point, |_| true) else {
        return Ok(None);
    };
    for container in app.n8n_containers(docker)? {
        let (name, version) = (&container.name, &container.version);
        if let Some(why) = why_too_old(name, version, made_by) {
            let image = point.facts(IMAGE_FACT).find_map(|(_, fact)| fact.split(' ').next());
            bail!(hinted(
                why,
                format_args!(
                    "set n8n's image to version {made_by} ({}) and run docker compose up --no-start, or add --force",
                    image.unwrap_or("image unknown")
                )
            ))
        }
        if numbers(version) > numbers(made_by) {
            return Ok(Some(format!(
                "{name} is n8n {version}, and will migrate the database of n8n {made_by} when it starts; there is no way back"
            )));
        }
    }
    Ok(None)
}

/// The newest n8n that a recovery point was made by, as far as it tells, in an image that counts.
fn made_by(point: &Point, counts: impl Fn(&str) -> bool) -> Option<&str> {
    let is_in_one = |container: &str| {
        let image = point.fact(&format!("{IMAGE_FACT}{container}"));
        image.is_none_or(|image| counts(image.split(' ').next().unwrap_or_default()))
    };
    let versions = point.facts(VERSION_FACT).filter(|(container, _)| is_in_one(container));
    let versions = versions.map(|(_, version)| version);
    versions.max_by_key(|version| numbers(version))
}

/// Why an n8n cannot run on the database of a recovery point that this one has made; nothing where its version is not one
/// of numbers (`nightly`).
fn why_too_old(name: &str, version: &str, made_by: &str) -> Option<String> {
    let is_older = !numbers(version).is_empty() && numbers(version) < numbers(made_by);
    is_older.then(|| {
        format!(
            "{name} is n8n {version}, and the recovery point was made by n8n {made_by}: an older n8n does not run on the \
             database of a newer one"
        )
    })
}

/// The numbers of a version; what follows them does not count.
fn numbers(version: &str) -> Vec<u64> {
    let core = version
        .trim_start_matches('v')
        .split(['-', '+'])
        .next()
        .unwrap_or_default();
    core.split('.').map_while(|part| part.parse().ok()).collect()
}

impl N8nImage {
    /// n8n with its version, for messages.
    pub fn title(&self) -> String {
        match &self.version {
            Some(version) => format!("n8n {version}"),
            None => format!("n8n ({})", self.name),
        }
    }

    /// Why it cannot run on the database of a recovery point, whose n8n is newer. The label of an image of somebody's own,
    /// which is n8n's unless it was given another one, is compared with those of such images alone.
    pub fn why_too_old(&self, point: &Point) -> Option<String> {
        let made_by = made_by(point, |image| is_n8n_image(image) == is_n8n_image(&self.name))?;
        why_too_old(&self.name, self.version.as_deref()?, made_by)
    }

    /// This image with the container and the variables of the stack's n8n, but for those that came with that one's image.
    pub fn in_place_of(self, live: Option<Self>, docker: &Docker) -> Result<Self> {
        let Some(live) = live else { return Ok(self) };
        let own = docker.image_environment(&live.id)?;
        let mut environment = live.environment;
        environment.retain(|name, value| !own.contains(&format!("{name}={value}")));
        Ok(Self {
            container: live.container,
            environment,
            ..self
        })
    }

    /// A variable of its container; an empty one is none.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.environment
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// The key that the running n8n uses; none where that cannot be found out.
    pub fn live_key(&self, docker: &Docker) -> Option<Secret> {
        if let Some(key) = self.variable("N8N_ENCRYPTION_KEY") {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Stamp;

    #[test]
    fn an_image_is_named_by_what_can_be_pulled() {
        let mut point = Point::new(Stamp::parse("20260101_000000").unwrap());
        for (name, value) in [
            ("n8n.image.main", "n8nio/n8n:2 sha256:aa"),
            ("n8n.digest.main", "n8nio/n8n@sha256:11"),
            ("n8n.image.own", "own sha256:bb"),
            ("n8n.digest.own", "none"),
            ("n8n.image.unknown", "old sha256:cc"),
        ] {
            point.set(name, value);
        }
        assert_eq!(
            named(&point),
            ["n8nio/n8n:2 (n8nio/n8n@sha256:11)", "own sha256:bb", "old sha256:cc"]
        );
        // Where a point does not say whether there is a digest, the engine is asked.
        let known = digests(&point);
        assert_eq!(known.keys().collect::<Vec<_>>(), ["sha256:aa", "sha256:bb"]);
    }

    #[test]
    fn an_n8n_that_is_older_than_the_point_is_told() {
        let mut point = Point::new(Stamp::parse("20260101_000000").unwrap());
        let image = |name: &str, version: &str| N8nImage {
            id: String::new(),
            name: name.to_owned(),
            version: Some(version.to_owned()),
            container: None,
            environment: BTreeMap::new(),
        };
        let why = |version: &str, point: &Point| image("n8n:old", version).why_too_old(point);
        assert_eq!(why("1.0.0", &point), None);
        point.set("n8n.version.main", "2.40.7");
        point.set("n8n.version.worker", "2.9.1");
        let told = why("2.10.0", &point).unwrap();
        assert!(told.starts_with("n8n:old is n8n 2.10.0, and the recovery point was made by n8n 2.40.7"));
        // A version of something else.
        point.set("n8n.image.main", "mine/automation:2 sha256:aa");
        assert!(why("2.9.0", &point).is_some_and(|told| told.contains("n8n 2.9.1")));
        assert!(image("mine/automation:1", "2.10.0").why_too_old(&point).is_some());
        for container in ["main", "worker"] {
            point.set(&format!("n8n.image.{container}"), "n8nio/n8n:2 sha256:aa");
        }
        assert_eq!(image("mine/automation:1", "1.4.2").why_too_old(&point), None);
        for version in ["2.40.7", "2.41.0", "nightly", ""] {
            assert_eq!(why(version, &point), None, "{version}");
        }
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let is_older = |a: &str, b: &str| numbers(a) < numbers(b);
        assert!(is_older("2.9.9", "2.40.7") && is_older("1.123.4", "2.0.0") && is_older("2.40", "2.40.7"));
        assert!(!is_older("2.40.7", "2.40.7-exp.0") && !is_older("v2.40.8", "2.40.7"));
    }
}
