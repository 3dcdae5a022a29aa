//! What the engine says of every container at once, for the discovery of a stack.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result};

use super::container::OURS;
use super::dialect::{absent, engine_error};
use super::inspect::{restart_policy, Container, Mount, Status, VERSION};
use super::Docker;
use crate::formats::json::Json;

/// Everything that tells what part a container plays in a stack. The environment may hold secrets.
#[derive(Clone, Debug)]
pub struct Described {
    /// Its ID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The image's name, as it stood on the command line.
    pub image: String,
    /// Its state.
    pub status: Status,
    /// Its environment, the image's with it.
    pub env: BTreeMap<String, String>,
    /// The user that it runs as, where one was named.
    pub user: String,
    /// The program that it starts, with its first arguments.
    pub entry_point: Vec<String>,
    /// The arguments that follow them.
    pub command: Vec<String>,
    /// Its labels, the image's with them.
    pub labels: BTreeMap<String, String>,
    /// What it mounts.
    pub mounts: Vec<MountPoint>,
    /// Under which names it is known in each network.
    pub networks: BTreeMap<String, Vec<String>>,
    /// Its own host name.
    pub host_name: String,
    /// `host`, `container:ID`, or the name of a network.
    pub network_mode: String,
    /// The ports of the host that were to lead to it.
    pub published: Vec<Published>,
    /// Whether any port of the host leads to it now: in networks of type macvlan none does, whatever was asked for.
    pub is_bound: bool,
    /// The addresses of the engine's host in its networks, while it runs.
    pub gateways: Vec<String>,
    /// The ports that its image, or who created it, says that it listens on.
    pub exposed: Vec<u16>,
    /// The containers that it is linked to, each with a name that it has for it.
    pub links: Vec<(String, String)>,
    /// The same as a question about this container alone would tell.
    pub container: Container,
}

/// Something of the host, or a volume, that a container sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPoint {
    /// The volume's name; empty for what is no volume.
    pub volume: String,
    /// The path of the engine's host.
    pub source: String,
    /// Where the container sees it.
    pub destination: String,
}

/// A port of the host that leads to a port of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The address of the host that it is on; empty, or one that is unspecified, for all.
    pub address: String,
    /// The port of the host.
    pub outer: u16,
    /// The container's.
    pub inner: u16,
}

impl Described {
    /// A label.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// A variable of its environment; an empty one is none.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether it is a helper or scratch container of a project.
    pub fn is_ours(&self, project: &str) -> bool {
        OURS.iter().any(|key| {
            let owner = self.label(key);
            owner.starts_with(project) && !project.is_empty()
        })
    }

    fn of_json(container: &Json) -> Option<Self> {
        let at = |path: &[&str]| path.iter().try_fold(container, |value, name| value.get(name));
        let text = |path: &[&str]| at(path).and_then(Json::as_str).unwrap_or_default().to_owned();
        let list = |path: &[&str]| at(path).map(texts).unwrap_or_default();
        let pairs = |path: &[&str]| -> BTreeMap<String, String> {
            let fields = at(path).map(Json::fields).unwrap_or_default().iter();
            fields
                .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
                .collect()
        };
        let env = list(&["Config", "Env"]);
        let env = env.iter().filter_map(|pair| pair.split_once('='));
        let mut mounts: Vec<&Json> = at(&["Mounts"]).map(Json::items).unwrap_or_default().iter().collect();
        // The engine tells of them in no order.
        mounts.sort_by_key(|mount| mount.get("Destination").and_then(Json::as_str));
        let mounts = mounts.into_iter();
        let field = |mount: &Json, name: &str| mount.get(name).and_then(Json::as_str).unwrap_or_default().to_owned();
        // A mount itself does not tell what it was made with.
        let made_with = at(&["HostConfig", "Mounts"]).map(Json::items).unwrap_or_default();
        let subpath_at = |place: &str| {
            let mut made = made_with
                .iter()
                .filter(|made| Path::new(&field(made, "Target")) == Path::new(place));
            let subpath = made.find_map(|made| made.get("VolumeOptions")?.get("Subpath")?.as_str());
            subpath.filter(|path| !path.is_empty()).map(str::to_owned)
        };
        let networks = at(&["NetworkSettings", "Networks"])
            .map(Json::fields)
            .unwrap_or_default();
        let number = |path: &[&str]| at(path).map(Json::to_string).unwrap_or_default();
        let name = container.get("Name")?.as_str()?.trim_start_matches('/').to_owned();
        let labels = pairs(&["Config", "Labels"]);
        Some(Self {
            container: Container {
                name: name.clone(),
                id: text(&["Id"]),
                image_id: text(&["Image"]),
                image: text(&["Config", "Image"]),
                status: Status::parse(&text(&["State", "Status"])),
                version: labels.get(VERSION).cloned().unwrap_or_default(),
                // podman may write a date as people read it.
                started_at: text(&["State", "StartedAt"]).replace(' ', "_"),
                restart: restart_policy(
                    &text(&["HostConfig", "RestartPolicy", "Name"]),
                    &number(&["HostConfig", "RestartPolicy", "MaximumRetryCount"]),
                ),
                auto_remove: matches!(at(&["HostConfig", "AutoRemove"]), Some(Json::Bool(true))),
                mounts: mounts
                    .clone()
                    .map(|mount| {
                        let [kind, name, at, source] =
                            ["Type", "Name", "Destination", "Source"].map(|name| field(mount, name));
                        let subpath = subpath_at(&at);
                        let read_only = matches!(mount.get("RW"), Some(Json::Bool(false)));
                        Mount::new(&kind, name, at, source, subpath, read_only)
                    })
                    .collect(),
            },
            id: container.get("Id")?.as_str()?.to_owned(),
            name,
            image: text(&["Config", "Image"]),
            status: Status::parse(&text(&["State", "Status"])),
            env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            // podman before 5 gives a text.
            user: text(&["Config", "User"]),
            entry_point: match at(&["Config", "Entrypoint"]) {
                Some(Json::Text(words)) => words.split_whitespace().map(str::to_owned).collect(),
                _ => list(&["Config", "Entrypoint"]),
            },
            command: list(&["Config", "Cmd"]),
            labels,
            mounts: mounts
                .map(|mount| {
                    let text = |name| mount.get(name).and_then(Json::as_str).unwrap_or_default().to_owned();
                    MountPoint {
                        volume: if text("Type") == "volume" {
                            text("Name")
                        } else {
                            String::new()
                        },
                        source: text("Source"),
                        destination: text("Destination"),
                    }
                })
                .collect(),
            networks: networks
                .iter()
                .map(|(name, network)| {
                    let mut names = network.get("Aliases").map(texts).unwrap_or_default();
                    names.extend(network.get("DNSNames").map(texts).unwrap_or_default());
                    names.extend(network.get("IPAddress").and_then(Json::as_str).map(str::to_owned));
                    names.retain(|name| !name.is_empty());
                    (name.clone(), names)
                })
                .collect(),
            host_name: text(&["Config", "Hostname"]),
            network_mode: text(&["HostConfig", "NetworkMode"]),
            published: at(&["HostConfig", "PortBindings"]).map(ports).unwrap_or_default(),
            is_bound: at(&["NetworkSettings", "Ports"]).is_some_and(|bound| !ports(bound).is_empty()),
            gateways: networks
                .iter()
                .filter_map(|(_, network)| network.get("Gateway")?.as_str())
                .filter(|gateway| !gateway.is_empty())
                .map(str::to_owned)
                .collect(),
            exposed: at(&["Config", "ExposedPorts"])
                .map(Json::fields)
                .unwrap_or_default()
                .iter()
                .filter_map(|(port, _)| port_of(port))
                .collect(),
            links: list(&["HostConfig", "Links"])
                .into_iter()
                .chain(
                    networks
                        .iter()
                        .flat_map(|(_, network)| network.get("Links").map(texts).unwrap_or_default()),
                )
                .filter_map(|link| link_of(&link))
                .collect(),
        })
    }
}

/// The texts in a list.
fn texts(list: &Json) -> Vec<String> {
    list.items()
        .iter()
        .filter_map(Json::as_str)
        .map(str::to_owned)
        .collect()
}

/// Reads `5432/tcp`.
fn port_of(text: &str) -> Option<u16> {
    text.split('/').next()?.parse().ok()
}

/// Reads `/other:/container/name`, or `other:name`.
fn link_of(text: &str) -> Option<(String, String)> {
    let (other, name) = text.split_once(':')?;
    let name = name.rsplit('/').next()?;
    Some((other.trim_start_matches('/').to_owned(), name.to_owned()))
}

/// Reads `{"5432/tcp": [{"HostIp": "127.0.0.1", "HostPort": "15432"}]}`.
fn ports(bindings: &Json) -> Vec<Published> {
    let mut found = Vec::new();
    for (inner, outer) in bindings.fields() {
        let inner = port_of(inner);
        found.extend(outer.items().iter().filter_map(|port| {
            Some(Published {
                address: port.get("HostIp").and_then(Json::as_str).unwrap_or_default().to_owned(),
                outer: port.get("HostPort")?.as_str()?.parse().ok()?,
                inner: inner?,
            })
        }));
    }
    found
}

/// How long the engine may take to tell of all containers, before it is asked for each.
const PATIENCE: Duration = Duration::from_secs(20);
/// How many questions are asked at the same time then.
const AT_ONCE: usize = 8;

impl Docker {
    /// Every container of the engine, also those that do not run. One that is removed meanwhile is left out.
    pub fn describe_all(&self) -> Result<Vec<Described>> {
        let listed = self.query(&["ps", "--all", "--quiet", "--no-trunc"])?;
        if !listed.success {
            return Err(engine_error(&listed.stderr));
        }
        let ids = listed.text();
        let ids: Vec<&str> = ids.lines().filter(|id| !id.is_empty()).collect();
        let brief = self.clone().with_stall(self.stall.min(PATIENCE));
        let begun = Instant::now();
        match brief.describe(&ids) {
            Err(error) if begun.elapsed() >= brief.stall && ids.len() > 1 => brief.describe_each(&ids, error),
            done => done,
        }
    }

    /// Those of these containers that the engine tells of when it is asked for each alone. While one is locked, as by a
    /// `docker cp` that somebody has stopped, it answers no question that names that one.
    fn describe_each(&self, ids: &[&str], error: Error) -> Result<Vec<Described>> {
        let parts = ids.chunks(ids.len().div_ceil(AT_ONCE));
        let all: Vec<Described> = thread::scope(|scope| {
            let ask = |part: &[&str]| -> Vec<Described> {
                let each = part.iter().filter_map(|id| match self.describe(&[id]) {
                    Ok(found) => Some(found),
                    Err(error) => {
                        log::trace!("container {id} is passed over: {error:#}");
                        None
                    }
                });
                each.flatten().collect()
            };
            let asked: Vec<_> = parts.map(|part| scope.spawn(move || ask(part))).collect();
            asked
                .into_iter()
                .flat_map(|thread| thread.join().unwrap_or_default())
                .collect()
        });
        match all.is_empty() {
            true => Err(error),
            false => Ok(all),
        }
    }

    /// Those of these containers that there are.
    pub fn describe(&self, names: &[&str]) -> Result<Vec<Described>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let output = self.query(&[&["inspect", "--type", "container", "--"], names].concat())?;
        if !output.success {
            absent(output.stderr_lines())?;
        }
        parse(&output.text()).context("docker inspect gave an answer that is not understood")
    }
}

/// Reads what `docker inspect` prints.
fn parse(text: &str) -> Result<Vec<Described>> {
    let all = Json::parse(text)?;
    all.items()
        .iter()
        .map(|container| Described::of_json(container).context("a container without a name"))
        .collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A container as `docker inspect` would describe it.
    pub fn described(text: &str) -> Described {
        parse(&format!("[{text}]")).unwrap().remove(0)
    }

    #[test]
    fn what_inspect_prints_is_read() {
        let found = described(
            r#"{"Id": "0a", "Name": "/web-1", "State": {"Status": "running"},
                "Config": {"Image": "n8nio/n8n:2", "Env": ["A=b=c", "EMPTY=", "odd"], "Entrypoint": ["tini", "--"],
                           "Cmd": null, "Labels": {"x": "y"}, "Hostname": "web", "ExposedPorts": {"5678/tcp": {}}},
                "HostConfig": {"NetworkMode": "n", "AutoRemove": true,
                               "Mounts": [{"Type": "volume", "Source": "v", "Target": "/home/node/.n8n/", "VolumeOptions": {"Subpath": "n8n"}},
                                          {"Type": "volume", "Source": "w", "Target": "/w", "VolumeOptions": {}}],
                               "Links": ["/n8n-db:/web-1/postgres"], "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
                               "PortBindings": {"5678/tcp": [{"HostIp": "127.0.0.1", "HostPort": "80"}], "9/udp": null}},
                "Mounts": [{"Type": "volume", "Name": "v", "Source": "/var/v", "Destination": "/home/node/.n8n"},
                           {"Type": "bind", "Source": "/srv", "Destination": "/files", "RW": false}],
                "NetworkSettings": {"Ports": {"5678/tcp": [{"HostIp": "127.0.0.1", "HostPort": "80"}]},
                                    "Networks": {"n": {"Aliases": ["n8n"], "Links": ["p-db-1:db"], "IPAddress": "172.18.0.2", "Gateway": "172.18.0.1"}, "m": {"Aliases": null}}}}"#,
        );
        assert_eq!((found.name.as_str(), &found.status), ("web-1", &Status::Running));
        assert_eq!((found.variable("A"), found.variable("EMPTY")), (Some("b=c"), None));
        assert_eq!((found.label("x"), found.label("z")), ("y", ""));
        // In the order of their places, whatever that of the answer.
        assert_eq!(
            (found.mounts[0].volume.as_str(), found.mounts[0].source.as_str()),
            ("", "/srv")
        );
        assert_eq!(found.mounts[1].volume, "v");
        assert_eq!(found.networks["n"], ["n8n", "172.18.0.2"]);
        let published = Published {
            address: "127.0.0.1".to_owned(),
            outer: 80,
            inner: 5678,
        };
        assert_eq!((found.published, found.exposed), (vec![published], vec![5678]));
        assert!(found.is_bound);
        for ports in ["{}", r#"{"5678/tcp": null}"#, "null"] {
            let text = format!(r#"{{"Id": "0a", "Name": "/lan", "NetworkSettings": {{"Ports": {ports}}}}}"#);
            assert!(!described(&text).is_bound, "{ports}");
        }
        assert_eq!(found.gateways, ["172.18.0.1"]);
        let link = |other: &str, name: &str| (other.to_owned(), name.to_owned());
        assert_eq!(found.links, [link("n8n-db", "postgres"), link("p-db-1", "db")]);
        let container = &found.container;
        assert_eq!(
            (container.name.as_str(), container.restart.as_str()),
            ("web-1", "on-failure:3")
        );
        let subpaths: Vec<Option<&str>> = container.mounts.iter().map(|mount| mount.subpath.as_deref()).collect();
        assert_eq!(subpaths, [None, Some("n8n")]);
        assert!(container.auto_remove);
        assert_eq!(
            (
                container.mounts[1].name.as_str(),
                container.mounts[0].directory.as_str()
            ),
            ("v", "/srv")
        );
        assert!(found.command.is_empty());
        assert!(parse("[{}]").is_err() && parse("x").is_err());
    }
}
