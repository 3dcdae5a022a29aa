//! Containers of ours: what they are made from, and the guard that removes them.

use std::fmt;
use std::process::Command;

use anyhow::{bail, Result};

use super::dialect::{engine_error, is_absent, is_being_removed};
use super::Docker;

/// Where a container of ours sees its volume. No image brings files there that a fresh volume would be filled with.
pub const DATA_MOUNT: &str = "/n8n-backup-volume";

/// n8n runs some dozens of threads and processes.
const PIDS: &str = "512";
/// A quarter of what a container has without it.
const CPU_SHARES: &str = "256";

/// What a container of ours is labelled with, and whose it is. What a killed run has left is found by it.
#[derive(Clone, Copy, Debug)]
pub enum Label<'a> {
    /// A helper container, of one owner.
    Helper(&'a str),
    /// A helper container of any restore, of one project.
    Restore(&'a str),
    /// A helper container of one project whose run holds no lock, so that no other run takes it for a leftover: it goes by
    /// itself.
    Look(&'a str),
    /// A scratch container, of one project.
    Drill(&'a str),
}

/// `KEY=VALUE`, as leftovers of earlier versions bear it too.
impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Helper(owner) => write!(f, "{HELPER}={owner}"),
            Self::Restore(project) => write!(f, "{RESTORE}={project}"),
            Self::Look(project) => write!(f, "{HELPER}={project}-look"),
            Self::Drill(project) => write!(f, "{DRILL}={project}"),
        }
    }
}

/// The key of [`Label::Helper`].
pub(super) const HELPER: &str = "n8n-backup.helper";
const RESTORE: &str = "n8n-backup.restore";
const DRILL: &str = "n8n-backup.drill";
/// The keys of all labels.
pub(super) const OURS: [&str; 3] = [HELPER, RESTORE, DRILL];

/// What a container of ours shows.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// Volumes and directories.
    Mounts(&'a [Mounted]),
    /// All that another container has mounted, where that one sees it.
    Of(&'a str),
    /// An empty volume without a name, at [`DATA_MOUNT`]. The engine removes it with the container, as soon as that
    /// ends.
    Fresh,
    /// The same at another directory; where the image has one there, it begins as a copy of that.
    FreshAt(&'a str),
}

/// What is mounted: a volume, or a directory of the engine's host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A volume, by its name.
    Volume(String),
    /// A directory, by its path.
    Directory(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Volume(name) | Self::Directory(name) => f.write_str(name),
        }
    }
}

/// Something that a container of ours mounts.
#[derive(Clone, Debug)]
pub struct Mounted {
    /// What.
    pub source: Source,
    /// Where.
    pub target: String,
    /// Whether nothing can be written to it.
    pub read_only: bool,
    /// Whether a directory that is missing is made, as the engine does when it starts a container of Compose's.
    pub makes: bool,
}

impl Mounted {
    /// Docker's option for it. A directory that is missing is an error otherwise.
    fn option(&self) -> (&'static str, String) {
        match &self.source {
            Source::Volume(name) => {
                let mode = if self.read_only { ":ro" } else { "" };
                ("--volume", format!("{name}:{}{mode}", self.target))
            }
            Source::Directory(path) if self.makes && !path.contains(':') => {
                ("--volume", format!("{path}:{}", self.target))
            }
            Source::Directory(path) => {
                let mode = if self.read_only { ",readonly" } else { "" };
                // The fields are those of a CSV file.
                let field = |name: &str, value: &str| format!("\"{name}={}\"", value.replace('"', "\"\""));
                let (from, to) = (field("source", path), field("target", &self.target));
                ("--mount", format!("type=bind,{from},{to}{mode}"))
            }
        }
    }
}

/// What a container may not do that runs what came out of a backup: it has no capabilities, gains none, starts a bounded number of
/// processes, and gives way to the live stack.
#[derive(Clone, Copy, Debug, Default)]
pub struct Confined<'a> {
    /// The container whose network it shares; else it has none.
    pub network_of: Option<&'a str>,
    /// The container whose volumes it sees, beside its own.
    pub volume_of: Option<&'a str>,
    /// A directory in memory, with its options.
    pub tmpfs: Option<&'a str>,
}

/// What a container of ours is made from. It has no network of its own, and its image is never pulled.
#[derive(Clone, Copy, Debug)]
pub struct ContainerSpec<'a> {
    /// Its labels.
    pub labels: &'a [Label<'a>],
    /// The image, by ID or name.
    pub image: &'a str,
    /// What it shows.
    pub data: Data<'a>,
    /// The limits of memory and processors, as docker takes them (`1g`, `1.5`); empty for none.
    pub limits: Option<(&'a str, &'a str)>,
    /// Whether, and how, it is confined.
    pub confined: Option<Confined<'a>>,
    /// The user; the image's own when none.
    pub user: Option<&'a str>,
    /// Variables; they show in the engine's records, so never a secret.
    pub env: &'a [(&'a str, &'a str)],
    /// The program in place of the image's entry point.
    pub entrypoint: Option<&'a str>,
    /// The command, as it would stand after the image's name.
    pub argv: &'a [&'a str],
    /// Whether it goes when it ends, as scratch containers do anyway.
    pub transient: bool,
}

impl<'a> ContainerSpec<'a> {
    /// A container that runs `image` as it comes.
    pub const fn new(labels: &'a [Label<'a>], image: &'a str, data: Data<'a>) -> Self {
        Self {
            labels,
            image,
            data,
            limits: None,
            confined: None,
            user: None,
            env: &[],
            entrypoint: None,
            argv: &[],
            transient: false,
        }
    }

    /// A container that does nothing but show data.
    fn helper(labels: &'a [Label<'a>], image: &'a str, data: Data<'a>) -> Self {
        let looks = labels.iter().any(|label| matches!(label, Label::Look(_)));
        Self {
            user: Some("0"),
            entrypoint: Some("sleep"),
            // It ends by itself, should nobody come to remove it.
            argv: if looks { &["3600"] } else { &["86400"] },
            transient: looks,
            ..Self::new(labels, image, data)
        }
    }

    /// The arguments of docker that make it by `verb`.
    pub(super) fn args(&self, verb: &[&str]) -> Vec<String> {
        let mut args: Vec<String> = verb.iter().map(|arg| (*arg).to_owned()).collect();
        args.extend(["--pull", "never", "--no-healthcheck"].map(str::to_owned));
        let mut option = |name: &str, value: String| args.extend([name.to_owned(), value]);
        let joined = self.confined.and_then(|confined| confined.network_of);
        option(
            "--network",
            joined.map_or("none".to_owned(), |id| format!("container:{id}")),
        );
        for label in self.labels {
            option("--label", label.to_string());
        }
        if let Some((memory, cpus)) = self.limits {
            option("--memory", memory.to_owned());
            // No swap on top, which would only drag the host down.
            option("--memory-swap", memory.to_owned());
            if !cpus.is_empty() {
                option("--cpus", cpus.to_owned());
            }
        }
        if let Some(confined) = self.confined {
            option("--cap-drop", "ALL".to_owned());
            option("--security-opt", "no-new-privileges".to_owned());
            option("--pids-limit", PIDS.to_owned());
            option("--cpu-shares", CPU_SHARES.to_owned());
            if let Some(other) = confined.volume_of {
                option("--volumes-from", other.to_owned());
            }
            if let Some(tmpfs) = confined.tmpfs {
                option("--tmpfs", tmpfs.to_owned());
            }
        }
        let is_live = match self.data {
            Data::Mounts(_) => true,
            Data::Of(_) => self.confined.is_none(),
            Data::Fresh | Data::FreshAt(_) => false,
        };
        if is_live {
            // What was labelled for a live container alone (`:Z`) is to be read all the same, where SELinux rules.
            option("--security-opt", "label=disable".to_owned());
        }
        match self.data {
            Data::Mounts(mounts) => {
                for mount in mounts {
                    let (name, value) = mount.option();
                    option(name, value);
                }
            }
            Data::Of(container) => option("--volumes-from", container.to_owned()),
            Data::Fresh => option("--volume", DATA_MOUNT.to_owned()),
            Data::FreshAt(dir) => option("--volume", dir.to_owned()),
        }
        if let Some(user) = self.user {
            option("--user", user.to_owned());
        }
        for (name, value) in self.env {
            option("--env", format!("{name}={value}"));
        }
        if let Some(program) = self.entrypoint {
            option("--entrypoint", program.to_owned());
        }
        if self.transient || self.is_scratch() {
            // Its output is read from it, and kept on no disk.
            args.extend(["--rm", "--log-driver", "none"].map(str::to_owned));
        }
        args.extend(["--", self.image].map(str::to_owned));
        args.extend(self.argv.iter().map(|arg| (*arg).to_owned()));
        args
    }

    fn is_scratch(&self) -> bool {
        let is_of_drill = self.labels.iter().any(|label| matches!(label, Label::Drill(_)));
        is_of_drill || matches!(self.data, Data::Fresh | Data::FreshAt(_))
    }

    /// What messages call it.
    fn kind(&self) -> &'static str {
        if self.is_scratch() {
            "scratch"
        } else {
            "helper"
        }
    }
}

impl Docker {
    /// A file of a container, whether it runs or not, as a tar archive; of a symbolic link what it leads to, if it is followed.
    pub fn file_in(&self, container: &str, path: &str, follow: bool) -> Result<Vec<u8>> {
        let file = format!("{container}:{path}");
        let options: &[&str] = if follow { &["--follow-link"] } else { &[] };
        let copy = self.command([&["cp"], options, &["--", &file, "-"]].concat());
        let output = self.answer("docker cp", copy, None)?;
        match output.success {
            true => Ok(output.stdout),
            false => Err(engine_error(&output.stderr)),
        }
    }

    /// Makes a container; it does not run yet.
    pub(super) fn create(&self, spec: &ContainerSpec<'_>) -> Result<Guard> {
        self.make(&["create"], spec)
    }

    /// Starts a container that does nothing but show data, for programs that [`Docker::exec`] runs as root in it. The
    /// image needs `sleep` and what is to be run.
    pub fn helper_container(&self, labels: &[Label<'_>], image: &str, data: Data<'_>) -> Result<Guard> {
        let spec = ContainerSpec::helper(labels, image, data);
        self.make(&["run", "--detach"], &spec)
    }

    fn make(&self, verb: &[&str], spec: &ContainerSpec<'_>) -> Result<Guard> {
        let name = format!("docker {}", verb.join(" "));
        let output = self.answer(&name, self.command(spec.args(verb)), None)?;
        // One that was made and could not be started is removed, too.
        let guard = Guard {
            docker: self.clone(),
            id: output.text().lines().last().unwrap_or_default().trim().to_owned(),
        };
        if !output.success {
            let (kind, image) = (spec.kind(), spec.image);
            bail!(
                "could not make a {kind} container from image {image}: {}",
                output.stderr
            );
        }
        Ok(guard)
    }

    /// Removes the containers that bear `label`, which killed runs have left. Gives how many there were.
    pub fn sweep(&self, label: Label<'_>) -> Result<usize> {
        if self.glance().is_some_and(|glance| glance.is_without(label)) {
            return Ok(0);
        }
        let filter = format!("label={label}");
        let output = self.query(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter])?;
        if !output.success {
            return Err(engine_error(&output.stderr));
        }
        let text = output.text();
        let ids: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
        if !ids.is_empty() {
            self.remove(&ids)?;
        }
        Ok(ids.len())
    }

    /// Removes containers by force, with their anonymous volumes.
    fn remove(&self, ids: &[&str]) -> Result<()> {
        let command = self.command(["rm", "--force", "--volumes", "--"].iter().chain(ids));
        let output = self.answer("docker rm", command, None)?;
        // A container that ends just now removes itself.
        if !output.success && !is_being_removed(&output.stderr) && !is_absent(&output.stderr) {
            bail!("could not remove container {}: {}", ids.join(" "), output.stderr);
        }
        Ok(())
    }
}

/// A container of ours, which is removed when this goes out of scope.
#[derive(Debug)]
pub struct Guard {
    docker: Docker,
    id: String,
}

impl Guard {
    /// The container, for [`Docker::exec`].
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The client that made it.
    pub fn docker(&self) -> &Docker {
        &self.docker
    }

    /// `docker cp` of a tar archive on standard input into a directory: owners, modes and times are those of the
    /// members.
    pub fn unpack(&self, dir: &str) -> Command {
        self.docker.command(["cp", "--", "-", &format!("{}:{dir}", self.id)])
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.id.is_empty() {
            // What cannot be removed now is swept by the next run.
            let _ = self.docker.remove(&[&self.id]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_container_is_bounded_and_alone() {
        let spec = ContainerSpec {
            limits: Some(("1g", "0.5")),
            env: &[("A", "b c")],
            argv: &["postgres", "-c", "fsync=off"],
            ..ContainerSpec::new(&[Label::Drill("me")], "sha256:0", Data::Fresh)
        };
        let args = spec.args(&["create"]);
        let text = args.join(" ");
        for part in [
            "create --pull never --no-healthcheck --network none",
            "--log-driver none",
            "--memory 1g --memory-swap 1g --cpus 0.5",
            "--rm",
            "--label n8n-backup.drill=me",
            "--env A=b c",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.ends_with("-- sha256:0 postgres -c fsync=off"), "{text}");
        // The one volume is anonymous: no name, no path of this host.
        let volumes: Vec<&[String]> = args.windows(2).filter(|pair| pair[0].starts_with("--volume")).collect();
        assert_eq!(volumes, [["--volume", DATA_MOUNT]]);
    }

    #[test]
    fn a_helper_container_stays_and_is_found_by_each_of_its_labels() {
        let labels = [Label::Helper("me-restore-n8n"), Label::Restore("me")];
        let mount = |source, target: &str| Mounted {
            source,
            target: target.to_owned(),
            read_only: true,
            makes: false,
        };
        let mounts = [
            mount(Source::Volume("n8n_data".to_owned()), DATA_MOUNT),
            mount(Source::Directory("/srv/a,\"b\"".to_owned()), "/x"),
        ];
        let spec = ContainerSpec::helper(&labels, "alpine", Data::Mounts(&mounts));
        let text = spec.args(&["run", "--detach"]).join(" ");
        assert_eq!(
            text,
            "run --detach --pull never --no-healthcheck --network none --label n8n-backup.helper=me-restore-n8n \
             --label n8n-backup.restore=me --security-opt label=disable --volume n8n_data:/n8n-backup-volume:ro \
             --mount type=bind,\"source=/srv/a,\"\"b\"\"\",\"target=/x\",readonly --user 0 --entrypoint sleep -- alpine 86400"
        );
        // One that no lock stands for is found by no sweep, and goes by itself.
        let labels = [Label::Look("me")];
        let text = ContainerSpec::helper(&labels, "alpine", Data::Mounts(&[]))
            .args(&["run"])
            .join(" ");
        assert!(
            text.contains(" --label n8n-backup.helper=me-look ") && text.contains(" --rm "),
            "{text}"
        );
        // The mounts of a live container are labelled for that one alone; those of a scratch container are everybody's.
        let of = |confined| {
            let spec = ContainerSpec {
                confined,
                ..ContainerSpec::new(&labels, "alpine", Data::Of("redis"))
            };
            spec.args(&["create"]).join(" ")
        };
        assert!(of(None).contains(" --security-opt label=disable --volumes-from redis "));
        assert!(!of(Some(Confined::default())).contains("label=disable"));
    }
}
