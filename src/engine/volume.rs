//! Volumes: what they are, who uses them, and how they are read.

use std::process::Command;
use std::slice;

use anyhow::Result;

use super::container::{ContainerSpec, Data, Guard, Label, DATA_MOUNT, HELPER};
use super::dialect::{absent, engine_error};
use super::Docker;

impl Docker {
    /// Whether a volume of this name exists.
    pub fn volume_exists(&self, name: &str) -> Result<bool> {
        let output = self.query(&["volume", "inspect", "--format", "{{.Name}}", "--", name])?;
        if output.success {
            return Ok(true);
        }
        absent(output.stderr_lines()).map(|()| false)
    }

    /// The directory of the engine's host that a volume stands for, where it was made to stand for one; empty
    /// otherwise.
    pub fn volume_directory(&self, name: &str) -> Result<String> {
        const FORMAT: &str = "{{with .Options}}{{with index . \"device\"}}{{.}}{{end}}{{end}}";
        let output = self.query(&["volume", "inspect", "--format", FORMAT, "--", name])?;
        if !output.success {
            return Err(engine_error(&output.stderr));
        }
        Ok(output.text())
    }

    /// The names of the containers that run, or are paused, and mount a volume, or the directory that it stands for;
    /// helper containers of ours left out.
    pub fn users(&self, volume: &str) -> Result<Vec<String>> {
        let directory = self.volume_directory(volume)?;
        let mut names = self.users_of(volume)?;
        if !directory.is_empty() {
            names.extend(self.users_of(&directory)?);
            names.sort();
            names.dedup();
        }
        Ok(names)
    }

    /// As [`Docker::users`], of a volume or a directory alone.
    fn users_of(&self, source: &str) -> Result<Vec<String>> {
        let filter = format!("volume={source}");
        let list = |more: &[&str]| -> Result<Vec<String>> {
            let args = ["ps", "--no-trunc", "--format", "{{.Names}}", "--filter", &filter];
            let output = self.query(&[&args[..], more].concat())?;
            if !output.success {
                return Err(engine_error(&output.stderr));
            }
            Ok(output.text().lines().map(str::to_owned).collect())
        };
        let mut names = list(&[])?;
        let ours = list(&["--filter", &format!("label={HELPER}")])?;
        names.retain(|name| !name.is_empty() && !ours.contains(name));
        Ok(names)
    }

    /// What reads a volume: a container that only shows it, and never runs. Any image serves, since nothing of it is
    /// run.
    pub fn volume_reader(&self, label: Label<'_>, image: &str, volume: &str) -> Result<VolumeReader> {
        let spec = ContainerSpec {
            argv: &["true"],
            ..ContainerSpec::new(slice::from_ref(&label), image, Data::ReadOnly(volume))
        };
        self.create(&spec).map(VolumeReader::Container)
    }

    /// The same for podman, which gives all that it copies out of a container to root.
    pub fn volume_export(&self, volume: &str) -> VolumeReader {
        VolumeReader::Export(self.clone(), volume.to_owned())
    }
}

/// Reads a volume.
#[derive(Debug)]
pub enum VolumeReader {
    /// From a container that shows it.
    Container(Guard),
    /// By podman's `volume export`, with the volume's name.
    Export(Docker, String),
}

impl VolumeReader {
    /// Whether [`VolumeReader::archive`] opens `/dev/stdout` by that name, as podman does, which a socket does not
    /// allow.
    pub const fn opens_its_output(&self) -> bool {
        matches!(self, Self::Export(..))
    }

    /// The whole volume to standard output, as a tar stream. Members are named `./...`, by podman without the dot.
    pub fn archive(&self) -> Command {
        match self {
            Self::Container(guard) => guard.pack(DATA_MOUNT),
            Self::Export(docker, volume) => docker.command(["volume", "export", "--", volume]),
        }
    }
}
