//! Volumes: what they are, and who uses them.

use anyhow::Result;

use super::container::{Source, HELPER};
use super::describe::MountPoint;
use super::dialect::{absent, engine_error};
use super::Docker;

/// Where the engine keeps a volume, its type and options, and the device, as a template.
const PLACES: &str =
    "{{.Mountpoint}}|{{with .Options}}{{index . \"type\"}},{{index . \"o\"}}|{{index . \"device\"}}{{end}}";

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
        let output = self.query(&["volume", "inspect", "--format", PLACES, "--", name])?;
        if !output.success {
            return Err(engine_error(&output.stderr));
        }
        let text = output.text();
        let mut fields = text.splitn(3, '|').map(str::to_owned);
        let mut field = || fields.next().unwrap_or_default();
        let (kept_in, options, device) = (field(), field(), field());
        // Else it is a disk, of which others may have other parts.
        let is_directory = options.split(',').any(|option| ["bind", "rbind"].contains(&option));
        Ok((kept_in, if is_directory { device } else { String::new() }))
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
        let args: Vec<&str> = ["ps", "--quiet", "--no-trunc"].into_iter().chain(filters).collect();
        let output = self.query(&args)?;
        if !output.success {
            return Err(engine_error(&output.stderr));
        }
        let ids = output.text();
        let mut found = self.describe(&ids.lines().filter(|id| !id.is_empty()).collect::<Vec<_>>())?;
        // The engine also takes a place in a container for what is mounted there.
        let mounts = |mount: &MountPoint| wanted.contains(&mount.volume) || wanted.contains(&mount.source);
        found.retain(|one| one.label(HELPER).is_empty() && one.mounts.iter().any(mounts));
        Ok(found.into_iter().map(|one| one.name).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::testing::{TempDir, STALL};

    #[test]
    fn who_mounts_the_same_is_a_user_and_who_mounts_something_at_its_place_is_none() {
        let dir = TempDir::new();
        let program = dir.path().join("docker");
        let container = |name: &str, label: &str, kind: &str, volume: &str, source: &str, at: &str| {
            format!(
                r#"{{"Id": "{name}", "Name": "/{name}", "Config": {{"Labels": {{"{label}": "me"}}}},
                    "Mounts": [{{"Type": "{kind}", "Name": "{volume}", "Source": "{source}", "Destination": "{at}"}}]}}"#
            )
        };
        let all = [
            container("by-name", "x", "volume", "data", "/var/data/_data", "/a"),
            container("by-path", "x", "bind", "", "/var/data/_data", "/a"),
            container("by-device", "x", "bind", "", "/srv/data", "/a"),
            container("helper", HELPER, "volume", "data", "/var/data/_data", "/a"),
            container("other", "x", "volume", "other", "/var/other/_data", "/srv/data"),
        ];
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in\nvolume*disk) echo '/var/disk|btrfs,subvol=a|/dev/b' ;;\nvolume*kept) echo '/var/kept|' ;;\n\
             volume*) echo '/var/data/_data|none,ro,bind|/srv/data' ;;\nps*) echo \"$*\" \
             >>'{}'; echo 0a ;;\n*) cat <<'E'\n[{}]\nE\nesac\n",
            dir.path().join("log").display(),
            all.join(",")
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
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
            ["by-name", "by-path", "by-device"]
        );
        assert_eq!(users(Source::Directory("/srv/data".to_owned())), ["by-device"]);
        let asked = fs::read_to_string(dir.path().join("log")).unwrap();
        assert!(asked.contains("--filter=volume=data --filter=volume=/var/data/_data --filter=volume=/srv/data"));
    }
}
