//! Volumes: what they are, and who uses them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;

use super::container::{Source, HELPER};
use super::describe::MountPoint;
use super::dialect::{absent, engine_error};
use super::Docker;
use crate::process::Output;

/// The name of a volume, where the engine keeps it, its type and options, and the device, as a template.
const PLACES: &str =
    "{{.Name}}|{{.Mountpoint}}|{{with .Options}}{{index . \"type\"}},{{index . \"o\"}}|{{index . \"device\"}}{{end}}";

/// The places of volumes that were asked for, which stay the same for as long as a volume is there.
#[derive(Clone, Debug, Default)]
pub(super) struct Volumes(Arc<Mutex<BTreeMap<String, (String, String)>>>);

impl Volumes {
    fn known(&self) -> MutexGuard<'_, BTreeMap<String, (String, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Docker {
    /// Whether a volume of this name exists.
    pub fn volume_exists(&self, name: &str) -> Result<bool> {
        if self.glance().is_some_and(|glance| glance.mounts(name)) {
            return Ok(true);
        }
        let output = self.query(&["volume", "inspect", "--format", "{{.Name}}", "--", name])?;
        if output.success {
            return Ok(true);
        }
        absent(output.stderr_lines()).map(|()| false)
    }

    /// The directory of the engine's host that a volume stands for, where it was made to stand for one; empty
    /// otherwise.
    pub fn volume_directory(&self, name: &str) -> Result<String> {
        Ok(self.volume_places(name)?.1)
    }

    /// Where a volume lies on the engine's host: the directory that it stands for, or that the engine keeps it in.
    pub fn volume_path(&self, name: &str) -> Result<String> {
        let (kept_in, directory) = self.volume_places(name)?;
        Ok(Some(directory).filter(|path| !path.is_empty()).unwrap_or(kept_in))
    }

    /// The directory in which the engine keeps a volume, and the one that it stands for; empty without.
    fn volume_places(&self, name: &str) -> Result<(String, String)> {
        if let Some(places) = self.volumes.known().get(name) {
            return Ok(places.clone());
        }
        let output = self.ask_for_volumes(&[name])?;
        let places = self.volumes.known().get(name).cloned();
        places.ok_or_else(|| engine_error(&output.stderr))
    }

    /// Asks at once where several volumes lie, of which each is then known. Those that are not there are left out.
    pub fn learn_volumes(&self, names: &[&str]) -> Result<()> {
        match names {
            [] => Ok(()),
            names => self.ask_for_volumes(names).map(drop),
        }
    }

    fn ask_for_volumes(&self, names: &[&str]) -> Result<Output> {
        let output = self.query(&[&["volume", "inspect", "--format", PLACES, "--"], names].concat())?;
        let text = output.text();
        let found = text.lines().filter_map(|line| {
            let mut fields = line.splitn(4, '|');
            let (name, kept_in, options) = (fields.next()?, fields.next()?, fields.next()?);
            // Else it is a disk, of which others may have other parts.
            let is_directory = options.split(',').any(|option| ["bind", "rbind"].contains(&option));
            let directory = fields.next().filter(|_| is_directory).unwrap_or_default();
            Some((name.to_owned(), (kept_in.to_owned(), directory.to_owned())))
        });
        self.volumes.known().extend(found);
        Ok(output)
    }

    /// The names of the containers that run, or are paused, and mount a directory, or a volume, where the engine keeps it, or the
    /// directory that it stands for; helper containers of ours left out.
    pub fn users(&self, source: &Source) -> Result<Vec<String>> {
        let mut wanted = Vec::new();
        match source {
            Source::Volume(name) => {
                let (kept_in, directory) = self.volume_places(name)?;
                wanted.extend([name.clone(), kept_in, directory]);
            }
            Source::Directory(path) => wanted.push(path.clone()),
        }
        wanted.retain(|wanted| !wanted.is_empty());
        let filters: Vec<String> = wanted
            .iter()
            .map(|wanted| format!("--filter=volume={wanted}"))
            .collect();
        let filters = filters.iter().map(String::as_str);
        // Without --all, podman leaves out those that are paused.
        let ps = ["ps", "--all", "--quiet", "--no-trunc"];
        let args: Vec<&str> = ps.into_iter().chain(filters).collect();
        let output = self.query(&args)?;
        if !output.success {
            return Err(engine_error(&output.stderr));
        }
        let ids = output.text();
        let mut found = self.describe(&ids.lines().filter(|id| !id.is_empty()).collect::<Vec<_>>())?;
        // The engine also takes a place in a container for what is mounted there.
        let mounts = |mount: &MountPoint| wanted.contains(&mount.volume) || wanted.contains(&mount.source);
        found.retain(|one| one.status.is_up() && one.label(HELPER).is_empty() && one.mounts.iter().any(mounts));
        Ok(found.into_iter().map(|one| one.name).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::{executable, TempDir, STALL};

    #[test]
    fn who_mounts_the_same_is_a_user_and_who_mounts_something_at_its_place_is_none() {
        let dir = TempDir::new();
        let program = dir.path().join("docker");
        let in_state = |status: &str, name: &str, label: &str, kind: &str, volume: &str, source: &str, at: &str| {
            format!(
                r#"{{"Id": "{name}", "Name": "/{name}", "State": {{"Status": "{status}"}}, "Config": {{"Labels": {{"{label}": "me"}}}},
                    "Mounts": [{{"Type": "{kind}", "Name": "{volume}", "Source": "{source}", "Destination": "{at}"}}]}}"#
            )
        };
        let container = |name: &str, label: &str, kind: &str, volume: &str, source: &str, at: &str| {
            in_state("running", name, label, kind, volume, source, at)
        };
        let is = |status: &str| in_state(status, status, "x", "volume", "data", "/var/data/_data", "/a");
        let all = [
            container("by-name", "x", "volume", "data", "/var/data/_data", "/a"),
            container("by-path", "x", "bind", "", "/var/data/_data", "/a"),
            container("by-device", "x", "bind", "", "/srv/data", "/a"),
            container("helper", HELPER, "volume", "data", "/var/data/_data", "/a"),
            container("other", "x", "volume", "other", "/var/other/_data", "/srv/data"),
            is("paused"),
            is("restarting"),
            is("stopping"),
            is("exited"),
            is("created"),
            is("dead"),
        ];
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in\nvolume*disk) echo 'disk|/var/disk|btrfs,subvol=a|/dev/b' ;;\nvolume*kept) echo 'kept|/var/kept|' ;;\n\
             volume*) echo 'data|/var/data/_data|none,ro,bind|/srv/data' ;;\nps*) echo \"$*\" \
             >>'{}'; echo 0a ;;\n*) cat <<'E'\n[{}]\nE\nesac\n",
            dir.path().join("log").display(),
            all.join(",")
        );
        executable(&program, script);
        let docker = Docker::locate(Some(dir.path().into()), STALL).unwrap();
        let places = |name| {
            (
                docker.volume_path(name).unwrap(),
                docker.volume_directory(name).unwrap(),
            )
        };
        let of = |path: &str, directory: &str| (path.to_owned(), directory.to_owned());
        assert_eq!(places("data"), of("/srv/data", "/srv/data"));
        assert_eq!(places("kept"), of("/var/kept", ""));
        // Another volume may be another part of that disk.
        assert_eq!(places("disk"), of("/var/disk", ""));
        let users = |source| docker.users(&source).unwrap();
        assert_eq!(
            users(Source::Volume("data".to_owned())),
            ["by-name", "by-path", "by-device", "paused", "restarting", "stopping"]
        );
        assert_eq!(users(Source::Directory("/srv/data".to_owned())), ["by-device"]);
        let asked = fs::read_to_string(dir.path().join("log")).unwrap();
        assert!(asked.lines().all(|asked| asked.starts_with("ps --all ")), "{asked}");
        assert!(asked.contains("--filter=volume=data --filter=volume=/var/data/_data --filter=volume=/srv/data"));
    }
}
