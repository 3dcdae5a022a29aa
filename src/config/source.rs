//! What settings may be: a value from `.env`, the environment or the table becomes what its row says.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{bail, Context, Result};

use super::{Drill, Secret};

/// Where values come from.
pub(super) struct Source<'a> {
    /// Paths count from here.
    pub(super) project: &'a Path,
    pub(super) values: &'a BTreeMap<String, String>,
    pub(super) outer: &'a dyn Fn(&str) -> Option<String>,
    /// The default of a setting.
    pub(super) default_of: fn(&str) -> Option<&'static str>,
}

impl Source<'_> {
    fn value(&self, name: &str) -> Option<String> {
        let value = self.values.get(name).cloned();
        value.or_else(|| (self.outer)(name)).filter(|value| !value.is_empty())
    }

    /// A value as text: from `.env`, else from the process, else the default. An empty value is no value.
    pub(super) fn text(&self, name: &str) -> Result<String> {
        let value = match self.value(name) {
            Some(value) => value,
            None => (self.default_of)(name)
                .map(str::to_owned)
                .with_context(|| format!("{name} is not in the table of settings"))?,
        };
        if value.contains('\0') {
            bail!("{name} holds a NUL byte");
        }
        Ok(value)
    }

    pub(super) fn secret(&self, name: &str) -> Result<Option<Secret>> {
        Ok(Some(self.text(name)?).filter(|value| !value.is_empty()).map(Secret))
    }

    /// A text that may be none.
    pub(super) fn maybe(&self, name: &str) -> Result<Option<String>> {
        Ok(Some(self.text(name)?).filter(|value| !value.is_empty()))
    }

    /// A port that may be none.
    pub(super) fn port(&self, name: &str) -> Result<Option<u16>> {
        match self.text(name)?.is_empty() {
            true => Ok(None),
            false => self.number(name, 1, u16::MAX).map(Some),
        }
    }

    /// The number of one of Redis's databases, which may be none.
    pub(super) fn database(&self, name: &str) -> Result<Option<u32>> {
        match self.text(name)?.is_empty() {
            true => Ok(None),
            false => self.number(name, 0, u32::MAX).map(Some),
        }
    }

    /// Whether a setting is set.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    pub(super) fn switch(&self, name: &str) -> Result<bool> {
        let text = self.text(name)?;
        match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            _ => bail!("{name} must be true or false, not '{text}'"),
        }
    }

    /// A remote's name, by rclone's rule for names; so it is never read as an option or a path.
    pub(super) fn remote(&self, name: &str) -> Result<String> {
        let text = self.text(name)?;
        let remote = text.trim().trim_end_matches(':');
        let known = |c: char| c.is_alphanumeric() || "_-.+@ ".contains(c);
        if remote.is_empty() || remote.starts_with(['-', ' ']) || !remote.chars().all(known) {
            bail!("{name} must be the name of a remote of rclone, not '{text}'");
        }
        Ok(remote.to_owned())
    }

    pub(super) fn path(&self, name: &str) -> Result<Option<PathBuf>> {
        Ok(Some(self.text(name)?)
            .filter(|text| !text.is_empty())
            .map(|text| self.project.join(text)))
    }

    /// A path that there always is.
    pub(super) fn file(&self, name: &str) -> Result<PathBuf> {
        Ok(self.project.join(self.text(name)?))
    }

    /// A bucket or directory of a remote. On a disk or over SFTP, a slash at its beginning makes it an absolute path.
    pub(super) fn bucket(&self, name: &str) -> Result<String> {
        let text = self.text(name)?;
        let path = text.trim_end_matches('/');
        Ok(if path.is_empty() { "/" } else { path }.to_owned())
    }

    pub(super) fn seconds(&self, name: &str, least: u64, most: u64) -> Result<Duration> {
        self.number(name, least, most).map(Duration::from_secs)
    }

    /// An address, which may hold a secret, so no message shows it.
    pub(super) fn url(&self, name: &str) -> Result<Option<Secret>> {
        let url = self.secret(name)?;
        let known = |url: &Secret| {
            let text = url.reveal();
            (text.starts_with("http://") || text.starts_with("https://")) && text.chars().all(|c| c.is_ascii_graphic())
        };
        if url.as_ref().is_some_and(|url| !known(url)) {
            bail!("{name} must be an address that begins with http:// or https://");
        }
        Ok(url)
    }

    pub(super) fn number<T: FromStr + PartialOrd + fmt::Display>(&self, name: &str, least: T, most: T) -> Result<T> {
        let text = self.text(name)?;
        match text.trim().parse() {
            Ok(number) if number >= least && number <= most => Ok(number),
            _ => bail!("{name} must be a whole number from {least} to {most}, not '{text}'"),
        }
    }

    /// A name of a container or volume, by Docker's rule for names; so it is never read as an option.
    pub(super) fn name(&self, name: &str) -> Result<String> {
        let text = self.text(name)?.trim().to_owned();
        check_name(name, &text)?;
        Ok(text)
    }

    pub(super) fn names(&self, name: &str) -> Result<Vec<String>> {
        let names: Vec<String> = self.text(name)?.split_whitespace().map(str::to_owned).collect();
        for one in &names {
            check_name(name, one)?;
        }
        Ok(names)
    }

    pub(super) fn words(&self, name: &str) -> Result<Vec<String>> {
        Ok(self.text(name)?.split_whitespace().map(str::to_owned).collect())
    }

    /// Paths in a container, blank-separated, without a slash at the end.
    pub(super) fn places(&self, name: &str) -> Result<Vec<String>> {
        let text = self.text(name)?;
        let paths = text.split_whitespace().map(|path| path.trim_end_matches('/'));
        let paths: Vec<String> = paths.map(str::to_owned).collect();
        if let Some(path) = paths.iter().find(|path| !path.starts_with('/')) {
            bail!("{name} must list paths inside of n8n's containers, which begin with a slash, not '{path}'");
        }
        Ok(paths)
    }

    pub(super) fn drill(&self, name: &str) -> Result<Drill> {
        match self.text(name)?.trim() {
            "off" => Ok(Drill::Off),
            "postgres" => Ok(Drill::Postgres),
            "full" => Ok(Drill::Full),
            other => bail!("{name} must be off, postgres or full, not '{other}'"),
        }
    }

    /// An amount of memory as docker takes it: a number with a unit, or of bytes.
    pub(super) fn memory(&self, name: &str) -> Result<String> {
        let text = self.text(name)?.trim().to_ascii_lowercase();
        let number = text.strip_suffix(['b', 'k', 'm', 'g']).unwrap_or(&text);
        if !number.bytes().all(|b| b.is_ascii_digit())
            || number.parse::<u64>().is_ok_and(|n| n == 0)
            || number.is_empty()
        {
            bail!("{name} must be an amount of memory such as 512m or 2g, not '{text}'");
        }
        Ok(text)
    }

    /// A number of processors as docker takes it.
    pub(super) fn cpus(&self, name: &str) -> Result<String> {
        let text = self.text(name)?.trim().to_owned();
        let known = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        if !known || !text.parse::<f64>().is_ok_and(|n| n >= 0.01) {
            bail!("{name} must be a number of processors such as 1 or 0.5, not '{text}'");
        }
        Ok(text)
    }

    pub(super) fn image(&self, name: &str) -> Result<String> {
        let text = self.text(name)?.trim().to_owned();
        let known = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
        if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) || !text.chars().all(known) {
            bail!("{name} must be the name of an image, not '{text}'");
        }
        Ok(text)
    }
}

fn check_name(setting: &str, text: &str) -> Result<()> {
    let known = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) || !text.chars().all(known) {
        bail!("{setting} must be a name of letters, digits, '_', '.' and '-', not '{text}'");
    }
    Ok(())
}
