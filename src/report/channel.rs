//! Tells others how a run went: a monitor by HTTP (as healthchecks.io takes it), or any program. Both are bounded in time,
//! and what goes wrong with them is the caller's to log; it never spoils a backup.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{bail, Context as _, Result};

use crate::config::Secret;
use crate::process::{self, Chain, Failed, Input};

/// How much of the log goes with a message.
const BODY_BYTES: usize = 10_000;
/// How long a notify command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// Above what the limits in [`request`] add up to.
const CURL_LIMIT: Duration = Duration::from_secs(60);

/// What a ping says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A run begins.
    Start,
    /// It went well.
    Success,
    /// It did not.
    Fail,
}

/// Sends a ping by curl. `lines`, the last of the log, are its body. The address may be a secret, so it goes by
/// standard input.
///
/// # Errors
/// When there is no curl, or the server does not take it.
pub fn ping(url: &Secret, signal: Signal, lines: &[String]) -> Result<()> {
    let mut curl = process::command("curl");
    // --disable, which must come first, leaves the user's own .curlrc out.
    curl.args(["--disable", "--config", "-"]);
    let output = process::output(
        "curl",
        curl,
        Some(request(url.reveal(), signal, lines).into_bytes()),
        CURL_LIMIT,
    )
    .context("is curl installed?")?;
    if !output.success {
        bail!("{}", output.stderr);
    }
    Ok(())
}

/// curl's configuration for a ping: at most 10 seconds for a try, and half a minute for all of them.
fn request(url: &str, signal: Signal, lines: &[String]) -> String {
    let (url, query) = match url.split_once('?') {
        Some((url, query)) => (url, format!("?{query}")),
        None => (url, String::new()),
    };
    let (path, retries) = match signal {
        Signal::Start => ("/start", 0),
        Signal::Success => ("", 2),
        Signal::Fail => ("/fail", 2),
    };
    let url = format!("{}{path}{query}", url.trim_end_matches('/'));
    format!(
        "url = {}\nproto = \"=http,https\"\nsilent\nshow-error\nfail\noutput = \"/dev/null\"\nmax-time = 10\n\
         retry = {retries}\nretry-connrefused\nretry-max-time = 20\nheader = \"Content-Type: text/plain\"\n\
         data-raw = {}\n",
        quoted(&url),
        quoted(&body(lines))
    )
}

/// The last lines that fit.
fn body(lines: &[String]) -> String {
    let mut room = BODY_BYTES;
    let fits = lines.iter().rev().take_while(|line| {
        let fits = line.len() < room;
        room = room.saturating_sub(line.len() + 1);
        fits
    });
    let mut kept: Vec<&str> = fits.map(String::as_str).collect();
    kept.reverse();
    kept.join("\n")
}

/// A value in curl's configuration.
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{}\"", escaped.replace('\r', "\\r").replace('\t', "\\t"))
}

/// Runs `setting`, a program and its arguments parted by blanks, with `variables` in its environment and the last lines
/// of the log on standard input. No shell reads it. A program that is named with a slash is looked for in `project`.
///
/// # Errors
/// When it cannot be started, fails, or takes longer than a minute.
pub fn command(setting: &str, project: &Path, variables: &[(&str, OsString)], lines: &[String]) -> Result<()> {
    let mut words = setting.split_whitespace();
    let name = words.next().context("no program is named")?;
    let program = if name.contains('/') {
        project.join(name).into_os_string()
    } else {
        OsString::from(name)
    };
    // It is the user's own, and may need a token of its own.
    let mut command = process::command_keeping(program, |_| true);
    command
        .args(words)
        .current_dir(project)
        .envs(variables.iter().map(|(name, value)| (name, value)));
    let mut chain = Chain::new(COMMAND_LIMIT);
    let (stdin, mut stdout) = chain.spawn(name, command, Input::Piped)?;
    if let Some(stdin) = stdin {
        let text = format!("{}\n", body(lines));
        chain.pump("writing the log", io::Cursor::new(text), stdin, ());
    }
    // Its output is of no interest, and does not wind up the clock: the limit is one for the whole.
    chain.task("reading", move |_| Ok(io::copy(&mut stdout, &mut io::sink())?));
    match chain.finish() {
        // It need not read what it is given.
        Err(error) if error.downcast_ref::<Failed>().is_some() || !process::is_broken_pipe(&error) => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;

    #[test]
    fn a_ping_goes_where_its_signal_says() {
        let line = |url: &str, signal| request(url, signal, &[]).lines().next().unwrap().to_owned();
        assert_eq!(line("https://h/uuid", Signal::Start), "url = \"https://h/uuid/start\"");
        assert_eq!(line("https://h/uuid/", Signal::Success), "url = \"https://h/uuid\"");
        assert_eq!(
            line("https://h/k/n8n?create=1", Signal::Fail),
            "url = \"https://h/k/n8n/fail?create=1\""
        );
        assert_eq!(line("http://h/\"x", Signal::Success), "url = \"http://h/\\\"x\"");
    }

    #[test]
    fn the_last_lines_go_along() {
        let lines: Vec<String> = (0..1000).map(|n| format!("line {n:04} {}", "x".repeat(90))).collect();
        let body = body(&lines);
        assert!(body.len() <= BODY_BYTES && body.len() > BODY_BYTES - 200);
        assert!(body.ends_with(&lines[999]) && body.starts_with("line "));
        assert!(request("http://h", Signal::Fail, &["a \"b\"".into(), "c\\".into()])
            .contains("data-raw = \"a \\\"b\\\"\\nc\\\\\"\n"));
    }

    #[test]
    fn a_program_is_told_by_its_environment_without_a_shell() {
        let dir = TempDir::new();
        let told = |setting: &str| {
            command(
                setting,
                dir.path(),
                &[("N8N_BACKUP_RESULT", OsString::from("failure"))],
                &["the last line".to_owned()],
            )
        };
        std::fs::write(
            dir.path().join("hook"),
            "#!/bin/sh\necho \"$N8N_BACKUP_RESULT $# $1 $2\" >out; cat >>out\n",
        )
        .unwrap();
        std::fs::set_permissions(
            dir.path().join("hook"),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        told("./hook $(id) ;").unwrap();
        assert_eq!(
            std::fs::read_to_string(dir.path().join("out")).unwrap(),
            "failure 2 $(id) ;\nthe last line\n"
        );
        told("true").unwrap();
        assert!(told("false").is_err());
        assert!(told("./none").is_err());
    }
}
