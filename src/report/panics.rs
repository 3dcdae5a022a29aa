//! A fault of our own ends what it happens in, as an error, and not the program.

use std::panic::{self, AssertUnwindSafe, PanicHookInfo};

use anyhow::{anyhow, Result};

use super::log;

/// Has a panic, in any thread, logged as one line under `tag`, and fail the run.
pub fn log_panics(tag: &'static str) {
    panic::set_hook(Box::new(move |info| log::internal_error(tag, &describe(info))));
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload();
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let place = info.location().map_or_else(String::new, |place| format!(" ({place})"));
    format!("Internal error, please report it: {}{place}", text.unwrap_or("panic"))
}

/// Runs `work`; a panic in it, which has been logged then, is an error.
pub fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(anyhow!("stopped by an internal error")))
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::{env, thread};

    use super::*;

    #[test]
    fn a_panic_is_one_line_of_the_log_and_an_error() {
        const CHILD: &str = "PANICS_CHILD";
        if env::var_os(CHILD).is_some() {
            log::init(&log::Options::default()).unwrap();
            log_panics("backup-all");
            assert!(thread::spawn(|| panic!("two\nlines")).join().is_err());
            assert!(log::failure().unwrap().contains("two"));
            let error = caught(|| -> Result<()> { panic!("{}", "here") }).unwrap_err();
            assert_eq!(error.to_string(), "stopped by an internal error");
            assert_eq!(caught(|| Ok(1)).unwrap(), 1);
            return;
        }
        // The hook is the process's.
        let test = "report::panics::tests::a_panic_is_one_line_of_the_log_and_an_error";
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", "--nocapture", test])
            .env(CHILD, "1")
            // With one thread, the first line would begin with the test's name.
            .env("RUST_TEST_THREADS", "2")
            .output()
            .unwrap();
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success() && out.contains("1 passed"), "{out}{err}");
        let lines: Vec<&str> = out.lines().filter(|line| line.starts_with("[ERROR] ")).collect();
        let says = |line: &str, what: &str| {
            line.contains(&format!(
                "[backup-all] Internal error, please report it: {what} (src/report/panics.rs:"
            ))
        };
        assert!(
            lines.len() == 2 && says(lines[0], "two\\nlines") && says(lines[1], "here"),
            "{out}"
        );
        assert!(!err.contains("panicked") && !err.contains("backtrace"), "{err}");
    }
}
