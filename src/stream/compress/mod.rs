//! Compression: which program packs and unpacks, and how. Whatever is chosen, the result is a standard .gz file.

mod choice;
mod decompress;
mod parallel;
mod tool;

use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;

use anyhow::{bail, Context, Result};

use crate::process::{find, find_on_path, hinted, Chain, Observer, Pending};
use choice::Chooser;
use parallel::cores;
use tool::{Candidate, Tool};

pub use decompress::{decompress, decompress_file, Unpacking};

/// How streams are packed on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compressor {
    /// The program. Those before it are faster, the fastest first, and take its place for the parts that they pack well
    /// enough.
    candidates: Vec<Candidate>,
    /// What "well enough" is measured by: `gzip -6`, as the old scripts used it.
    measure: Option<Tool>,
    /// How many processes share the work, each with a part of the stream; 0 for a program that does it alone, as one
    /// stream.
    processes: usize,
}

impl Compressor {
    /// Chooses by the setting `BACKUP_COMPRESSOR`: `auto` (the fastest programs on this host that make archives about
    /// as small as `gzip -6` does), or a program, by name or path, with arguments. No shell reads it: words are
    /// separated by blanks.
    pub fn choose(setting: &str, path: Option<&OsString>) -> Result<Self> {
        let mut words = setting.split_whitespace().map(str::to_owned);
        let name = words.next().unwrap_or_else(|| "auto".to_owned());
        let args: Vec<String> = words.collect();
        if name == "auto" {
            return Self::auto(&|name| find_on_path(name, path)).context(hinted(
                "No gzip program found",
                "install gzip, or name one as BACKUP_COMPRESSOR in .env",
            ));
        }
        match find(&name, path) {
            Some(program) => Ok(Self::named(program, args)),
            None => bail!(hinted(
                format_args!("Compressor {name} not found"),
                "install it, or set BACKUP_COMPRESSOR=auto in .env"
            )),
        }
    }

    /// The best of what `find` finds. Levels are those that docs/performance.md has measured: the last ones all come
    /// within half a percent of `gzip -6`.
    fn auto(find: &dyn Fn(&str) -> Option<PathBuf>) -> Option<Self> {
        let programs: [(&str, &[&str]); 4] = [
            ("igzip", &["-1"]),
            ("libdeflate-gzip", &["-1", "-3", "-6"]),
            ("pigz", &["-1 -p 1", "-4 -p 1", "-5 -p 1", "-6 -p 1"]),
            ("gzip", &["-1", "-4", "-5", "-6"]),
        ];
        let mut candidates = Vec::new();
        for (name, levels) in programs {
            let Some(program) = find(name) else { continue };
            candidates.extend(levels.iter().map(|args| Candidate {
                tool: Tool::new(program.clone(), args),
                keeps_up: name == "igzip",
            }));
            // Whatever else is there is slower and packs no better.
            if name != "igzip" {
                break;
            }
        }
        let alone = candidates.len() < 2;
        (!candidates.is_empty()).then(|| Self {
            candidates,
            measure: find("gzip")
                .or_else(|| find("pigz"))
                .map(|program| Tool::new(program, "-6")),
            processes: if alone { 0 } else { cores() },
        })
    }

    /// `program`, with its usual level unless the arguments name one.
    fn named(program: PathBuf, mut args: Vec<String>) -> Self {
        let (level, processes) = match program.file_name().and_then(|name| name.to_str()) {
            Some("igzip") => ("-1", 0),
            Some("pigz") => ("-6", 0),
            // The second holds its whole input in memory, so that it must never see a whole stream.
            Some("gzip" | "libdeflate-gzip") => ("-6", cores()),
            _ => ("", 0),
        };
        if args.is_empty() && !level.is_empty() {
            args.push(level.to_owned());
        }
        Self {
            candidates: vec![Candidate {
                tool: Tool { program, args },
                keeps_up: false,
            }],
            measure: None,
            processes,
        }
    }

    /// The program that packs best.
    fn thorough(&self) -> Result<&Tool> {
        let last = self.candidates.last().context("no compressor has been chosen")?;
        Ok(&last.tool)
    }

    /// What the log says is used: `igzip -1`, `gzip -6 in 2 processes (gzip -1 for what it packs as well)`.
    pub fn label(&self) -> String {
        let labels: Vec<String> = self.candidates.iter().map(|candidate| candidate.tool.label()).collect();
        let Some((thorough, faster)) = labels.split_last() else {
            return String::new();
        };
        let mut label = thorough.clone();
        if self.processes > 1 {
            label.push_str(&format!(" in {} processes", self.processes));
        }
        match faster {
            [] => {}
            [faster] => label.push_str(&format!(" ({faster} for what it packs as well)")),
            faster => label.push_str(&format!(" ({} for what they pack as well)", faster.join(", "))),
        }
        label
    }

    /// Packs `from`, which passes `observer` on its way. Gives the packed stream, and the observer when all is done.
    pub fn compress<O: Observer>(
        &self,
        chain: &mut Chain,
        from: impl Read + Send + 'static,
        observer: O,
    ) -> Result<(Box<dyn Read + Send>, Pending<O>)> {
        if self.processes > 0 {
            let chooser = Chooser::new(self.candidates.clone(), self.measure.clone());
            return Ok(parallel::compress(chain, self.processes, chooser, from, observer));
        }
        let (stdin, stdout) = self.thorough()?.start(chain)?;
        let observer = chain.pump("packing", from, stdin, observer);
        Ok((Box::new(stdout), observer))
    }
}

#[cfg(test)]
mod tests;
