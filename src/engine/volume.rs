//! Volumes: what they are, and who uses them.

use anyhow::Result;

use super::container::{Source, HELPER};
use super::dialect::{absent, engine_error};
use super::Docker;

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
        const FORMAT: &str = "{{with .Options}}{{with index . \"device\"}}{{.}}{{end}}{{end}}";
        let output = self.query(&["volume", "inspect", "--format", FORMAT, "--", name])?;
        if !output.success {
            return Err(engine_error(&output.stderr));
        }
        Ok(output.text())
    }

    /// The names of the containers that run, or are paused, and mount a directory, or a volume or the directory that it
    /// stands for; helper containers of ours left out.
    pub fn users(&self, source: &Source) -> Result<Vec<String>> {
        let volume = match source {
            Source::Volume(name) => name,
            Source::Directory(path) => return self.users_of(path),
        };
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
}
