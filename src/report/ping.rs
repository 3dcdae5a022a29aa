//! `BACKUP_PING_URL`: a monitor that is told by HTTP, as healthchecks.io takes it, and that speaks up when it is not.

use std::time::Duration;

use anyhow::{bail, Context as _, Result};

use super::channel::{body, Channel, Outcome};
use super::log;
use crate::config::{Config, Secret};
use crate::process::{self, hinted};

/// Above what the limits in [`request`] add up to.
const LIMIT: Duration = Duration::from_secs(60);

/// The monitor.
pub struct Ping;

/// What a ping says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    Start,
    Success,
    Fail,
}

impl Channel for Ping {
    fn name(&self) -> &'static str {
        "ping"
    }

    fn is_on(&self, config: &Config) -> bool {
        config.ping_url.is_some()
    }

    fn probe(&self, config: &Config) -> Result<()> {
        process::find("curl", config.path.as_ref()).context(hinted("curl is missing", "install curl"))?;
        Ok(())
    }

    fn begin(&self, config: &Config) -> Result<()> {
        ping(config, Signal::Start, &[])
    }

    fn end(&self, config: &Config, outcome: &Outcome) -> Result<()> {
        let signal = if outcome.success { Signal::Success } else { Signal::Fail };
        ping(config, signal, &log::recent())
    }
}

/// Sends a ping by curl. `lines`, the last of the log, are its body.
fn ping(config: &Config, signal: Signal, lines: &[String]) -> Result<()> {
    let Some(url) = &config.ping_url else { return Ok(()) };
    send(url, signal, lines).context("BACKUP_PING_URL was not reached")
}

/// The address may be a secret, so it goes by standard input.
fn send(url: &Secret, signal: Signal, lines: &[String]) -> Result<()> {
    let mut curl = process::command("curl");
    // --disable, which must come first, leaves the user's own .curlrc out.
    curl.args(["--disable", "--config", "-"]);
    let request = request(url.reveal(), signal, lines).into_bytes();
    let output = process::output("curl", curl, Some(request), LIMIT)?;
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

/// A value in curl's configuration.
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{}\"", escaped.replace('\r', "\\r").replace('\t', "\\t"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(request("http://h", Signal::Fail, &["a \"b\"".into(), "c\\".into()])
            .contains("data-raw = \"a \\\"b\\\"\\nc\\\\\"\n"));
    }
}
