//! How much of the host a backup takes from what runs live.

use std::ffi::OsString;
use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::process::{self, find};

/// Both only make a system call.
const STALL: Duration = Duration::from_secs(10);

/// Gives this process, and all that it will start, the nice value `nice` (0 leaves it) and the lowest of the usual
/// priorities for the disk: by `renice` and `ionice` of util-linux, where `path` or the usual places have them. Must be
/// called before threads are started, which have priorities of their own. A value that the caller has chosen, by
/// `nice n8n-backup` for one, stays. Whatever comes of it, the backup goes on.
pub fn lower(nice: u8, path: Option<&OsString>) {
    if nice == 0 || current().is_none_or(|there| there != 0) {
        return;
    }
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
}

/// This process's nice value.
fn current() -> Option<i32> {
    nice_in(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// The nice value in the text of /proc/PID/stat (proc(5): field 19; the name, field 2, may hold blanks and
/// parentheses).
fn nice_in(stat: &str) -> Option<i32> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(16)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nice_value_is_found_behind_any_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 30 10 1 0 100 200 300";
        assert_eq!(nice_in(stat), Some(10));
        assert_eq!(nice_in("7 (x"), None);
        assert!(current().is_some());
    }
}
