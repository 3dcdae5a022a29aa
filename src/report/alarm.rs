//! The alarm of a run that did not come to its end: killed, crashed, or on a host that shuts down.
//!
//! A signal that ends us leaves us no time to tell anybody, and what std offers catches none. So a shell, which ignores
//! the signals of a shutdown, of a terminal and of a service manager, waits for the end of a pipe that we hold. The kernel
//! closes that however we end. Unless the last word was that all is told, the shell starts this program again, to report
//! the run as failed.

use std::env;
use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

use super::log::{self, Place};
use crate::config::Config;
use crate::store::Stamp;

/// What this program is started with to report a lost run. No option of a command: nobody but the shell gives it.
const FLAG: &str = "--report-lost-run";
/// The word that all is told.
const DONE: &str = "done";
/// Each line but [`DONE`] is the recovery point that the run has recorded.
const SCRIPT: &str = r#"trap '' HUP INT QUIT TERM
point=
while read -r line; do
  [ "$line" = done ] && exit
  point=$line
done
exec "$@" "$point""#;

/// The shell that waits.
#[derive(Debug)]
pub struct Alarm {
    shell: Child,
    pipe: ChildStdin,
}

impl Alarm {
    /// Starts the shell. It inherits no lock: whatever std opens is closed in a child.
    pub fn set(config: &Config) -> Result<Self> {
        let (log, from) = match log::place() {
            Some(place) => (place.path.clone().into_os_string(), place.from),
            None => (OsString::new(), 0),
        };
        let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // With all of our environment, where settings may be: what is started in the end is this very program.
        let mut command = Command::new("sh");
        command
            .args(["-c", SCRIPT, "sh"])
            .arg(env::current_exe().context("where this program is cannot be told")?)
            .arg(FLAG)
            .arg(&config.project)
            .arg(log)
            .args([from, u64::from(std::process::id()), begun.as_secs()].map(|number| number.to_string()))
            // A signal to the group of a terminal or of timeout(1) is not for it.
            .process_group(0)
            .stdin(Stdio::piped())
            // Whoever waits for the end of our output must not wait for the shell.
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut shell = command.spawn().context("could not execute sh")?;
        let pipe = shell.stdin.take().context("sh was started without its pipe")?;
        Ok(Self { shell, pipe })
    }

    /// Has the report of a lost run name this recovery point.
    pub fn note(&mut self, point: Stamp) {
        let _ = writeln!(self.pipe, "{point}");
    }

    /// All is told.
    pub fn dismiss(self) {
        let Self { mut shell, mut pipe } = self;
        let _ = writeln!(pipe, "{DONE}");
        drop(pipe);
        let _ = shell.wait();
    }
}

/// A run that did not come to its end.
#[derive(Debug, PartialEq, Eq)]
pub struct LostRun {
    /// The project directory.
    pub project: PathBuf,
    /// Where its lines are.
    pub log: Option<Place>,
    /// The process that is gone.
    pub pid: u64,
    /// When it began.
    pub begun: SystemTime,
    /// The recovery point that it has recorded.
    pub point: Option<Stamp>,
}

impl LostRun {
    /// Reads the arguments that the shell gives; none when they are a user's.
    pub fn of_args(args: impl IntoIterator<Item = OsString>) -> Option<Self> {
        let args: Vec<OsString> = args.into_iter().collect();
        let [flag, project, log, from, pid, begun, point] = args.as_slice() else {
            return None;
        };
        let number = |text: &OsString| text.to_str()?.parse::<u64>().ok();
        (flag == FLAG).then_some(())?;
        Some(Self {
            project: PathBuf::from(project),
            log: Some(Place {
                path: PathBuf::from(log),
                from: number(from)?,
            })
            .filter(|place| !place.path.as_os_str().is_empty()),
            pid: number(pid)?,
            begun: UNIX_EPOCH.checked_add(Duration::from_secs(number(begun)?))?,
            point: point.to_str().and_then(Stamp::parse),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_shell_passes_on_is_read() {
        let read = |args: [&str; 7]| LostRun::of_args(args.map(OsString::from));
        let run = read([FLAG, "/p q", "/p q/log", "12", "34", "56", "20260105_020000"]).unwrap();
        assert_eq!(run.log.unwrap().from, 12);
        assert_eq!((run.pid, run.begun), (34, UNIX_EPOCH + Duration::from_secs(56)));
        assert_eq!(run.point.unwrap().to_string(), "20260105_020000");
        let run = read([FLAG, "/p", "", "0", "34", "56", ""]).unwrap();
        assert_eq!((run.log, run.point), (None, None));
        assert!(read([FLAG, "/p", "", "0", "34", "18446744073709551615", ""]).is_none());
        assert!(LostRun::of_args(["backup-all"].map(OsString::from)).is_none());
        assert!(SCRIPT.contains(&format!("= {DONE} ]")));
    }
}
