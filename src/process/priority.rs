//! How much of the host a backup takes from what runs live.

use std::ffi::OsString;
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::process::{self, find};

/// Both only make a system call.
const STALL: Duration = Duration::from_secs(10);

/// The nice value of this process's session (sched(7), autogroup). Where the kernel shares the processors out among sessions, and
/// containers beside them, a process's own counts within its session alone.
const OF_SESSION: &str = "/proc/self/autogroup";

/// Whether this run has changed it.
static STEPPED_BACK: AtomicBool = AtomicBool::new(false);

/// Gives this process, and all that it will start, the nice value `nice` (0 leaves it) and the lowest of the usual
/// priorities for the disk: by `renice` and `ionice` of util-linux, where `path` or the usual places have them. Must be
/// called before threads are started, which have priorities of their own. A value that the caller has chosen, by
/// `nice n8n-backup` for one, stays. Whatever comes of it, the backup goes on.
///
/// A session without a terminal (cron's) steps back as a whole until [`put_back`]; the session of a terminal is its user's.
pub fn lower(nice: u8, path: Option<&OsString>) {
    let Some(stat) = Stat::read().filter(|stat| nice != 0 && stat.nice == 0) else {
        return;
    };
    let (nice, pid) = (nice.to_string(), std::process::id().to_string());
    let run = |name: &str, args: &[&str]| {
        if let Some(program) = find(name, path) {
            let mut command: Command = process::command(program);
            command.args(args).args(["-p", &pid]);
            let _ = process::output(name, command, None, STALL);
        }
    };
    run("renice", &["-n", &nice]);
    // 2: the class of those that ask for nothing special.
    run("ionice", &["-c", "2", "-n", "7"]);
    let is_unchanged = || fs::read_to_string(OF_SESSION).is_ok_and(|text| text.trim_end().ends_with(" nice 0"));
    if !stat.has_terminal && is_unchanged() {
        STEPPED_BACK.store(fs::write(OF_SESSION, nice).is_ok(), Ordering::Relaxed);
    }
}

/// Gives the session back what [`lower`] has taken from it: others work in it after us.
pub fn put_back() {
    if STEPPED_BACK.swap(false, Ordering::Relaxed) {
        let _ = fs::write(OF_SESSION, "0");
    }
}

/// What the kernel says of this process.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    nice: i32,
    has_terminal: bool,
}

impl Stat {
    fn read() -> Option<Self> {
        Self::of(&fs::read_to_string("/proc/self/stat").ok()?)
    }

    /// The text of /proc/PID/stat (proc(5): fields 7 and 19; the name, field 2, may hold blanks and parentheses).
    fn of(text: &str) -> Option<Self> {
        let (_, fields) = text.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        Some(Self {
            nice: fields.get(16)?.parse().ok()?,
            has_terminal: *fields.get(4)? != "0",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nice_value_and_terminal_are_found_behind_any_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 30 10 1 0 100 200 300";
        let found = |nice, has_terminal| Some(Stat { nice, has_terminal });
        assert_eq!(Stat::of(stat), found(10, false));
        assert_eq!(Stat::of(&stat.replace("7 7 0", "7 7 34816")), found(10, true));
        assert_eq!(Stat::of("7 (x"), None);
        assert!(Stat::read().is_some());
    }
}
