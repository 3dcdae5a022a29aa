//! `BACKUP_PING_URL`: a monitor that is told by HTTP, as healthchecks.io takes it, and that speaks up when it is not.

use std::path::Path;
use std::time::Duration;

use anyhow::{bail, ensure, Context as _, Result};

use super::channel::{body, Channel, Outcome};
use super::log;
use crate::config::{Config, Secret};
use crate::process::{self, hinted};

/// Above what the limits in [`request`] add up to.
const LIMIT: Duration = Duration::from_secs(60);
/// curl's exit code when it would have to follow a redirect.
const REDIRECTED: i32 = 47;

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
        config.ping_url.as_ref().map_or(Ok(()), check)
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
    check(url)?;
    // Where `probe` has found it, which looks further than cron's PATH reaches.
    let curl = process::find("curl", config.path.as_ref()).unwrap_or_else(|| "curl".into());
    send(&curl, url, signal, lines).context("BACKUP_PING_URL was not reached")
}

/// Refuses an address that nobody has who is the monitor.
fn check(url: &Secret) -> Result<()> {
    ensure!(
        !url.reveal().contains("${"),
        hinted(
            "BACKUP_PING_URL holds ${ as plain text",
            "write it in .env within double quotes or none, where a variable is read"
        )
    );
    Ok(())
}

/// The address may be a secret, so it goes by standard input.
fn send(curl: &Path, url: &Secret, signal: Signal, lines: &[String]) -> Result<()> {
    let mut curl = process::command(curl);
    // --disable, which must come first, leaves the user's own .curlrc out.
    curl.args(["--disable", "--config", "-"]);
    let request = request(url.reveal(), signal, lines).into_bytes();
    let output = process::output("curl", curl, Some(request), LIMIT)?;
    match output.code {
        _ if output.success => Ok(()),
        Some(REDIRECTED) => bail!(hinted(
            "it answered with a redirect",
            "give BACKUP_PING_URL as the address that this leads to, often https:// in place of http://"
        )),
        _ => bail!("{}", output.stderr),
    }
}

/// curl's configuration for a ping: at most 10 seconds for a try, and half a minute for all of them. A redirect is not
/// followed, since it may lead to a page of login, but must not pass for an answer. Brackets and braces are a part of
/// the address; a fragment is not, since nobody sends one: what stood behind it would not arrive.
fn request(url: &str, signal: Signal, lines: &[String]) -> String {
    let url = url.split('#').next().unwrap_or_default();
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
        "url = {}\ngloboff\nproto = \"=http,https\"\nsilent\nshow-error\nfail\nlocation\nmax-redirs = 0\n\
         output = \"/dev/null\"\nmax-time = 10\nretry = {retries}\nretry-connrefused\nretry-max-time = 20\n\
         header = \"Content-Type: text/plain\"\n\
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
    use crate::process::hint_of;
    use crate::testing::{executable, skip, TempDir};
    use std::fs;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    #[test]
    fn a_variable_that_was_not_read_is_no_address() {
        let url = Secret::new;
        assert!(check(&url("https://h/1?a=$b&c={d}")).is_ok());
        let error = check(&url("https://h/${ID}")).unwrap_err();
        assert!(hint_of(&error).unwrap().contains("double quotes"), "{error:#}");
    }

    #[test]
    fn the_curl_that_is_found_is_the_one_that_is_run() {
        let dir = TempDir::new();
        let (curl, out) = (dir.path().join("curl"), dir.path().join("out"));
        executable(&curl, "#!/bin/sh\ncat >\"${0%/*}/out\"\n");
        let mut config = Config::without_env_file(dir.path()).unwrap();
        config.ping_url = Some(Secret::new("https://h/1"));
        config.path = Some(dir.path().into());
        ping(&config, Signal::Success, &[]).unwrap();
        assert!(fs::read_to_string(out).unwrap().starts_with("url = \"https://h/1\"\n"));
    }

    /// A request that ends with "the last line".
    fn request_in(stream: &mut TcpStream) -> String {
        let mut request = Vec::new();
        while !request.ends_with(b"the last line") {
            let mut block = [0; 1024];
            let n = stream.read(&mut block).unwrap();
            assert_ne!(n, 0, "the request was cut");
            request.extend_from_slice(&block[..n]);
        }
        String::from_utf8(request).unwrap()
    }

    #[test]
    fn a_redirect_is_no_answer() {
        let Some(curl) = process::find("curl", None) else {
            return skip("ping::a_redirect_is_no_answer", "curl is not installed");
        };
        for (status, arrives) in [("200 OK", true), ("301 Moved Permanently", false), ("302 Found", false)] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}/uuid", listener.local_addr().unwrap());
            let server = thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                request_in(&mut stream);
                let head = format!("HTTP/1.1 {status}\r\nLocation: http://127.0.0.1:1/uuid\r\nConnection: close\r\n");
                stream
                    .write_all(format!("{head}Content-Length: 0\r\n\r\n").as_bytes())
                    .unwrap();
            });
            let sent = send(
                &curl,
                &Secret::new(&url),
                Signal::Success,
                &["the last line".to_owned()],
            );
            server.join().unwrap();
            assert_eq!(sent.is_ok(), arrives, "{status}: {sent:?}");
            if let Err(error) = sent {
                assert!(
                    hint_of(&error).is_some_and(|hint| hint.contains("BACKUP_PING_URL")),
                    "{error:#}"
                );
            }
        }
    }

    #[test]
    fn brackets_and_braces_are_sent_as_they_are() {
        let Some(curl) = process::find("curl", None) else {
            return skip("ping::brackets_and_braces", "curl is not installed");
        };
        for query in ["tags[]=n8n", "c={d}", "c={a,b}", "c=[1-2]"] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = Secret::new(&format!("http://{}/uuid?{query}", listener.local_addr().unwrap()));
            let server = thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let request = request_in(&mut stream);
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                    .unwrap();
                request
            });
            send(&curl, &url, Signal::Success, &["the last line".to_owned()]).unwrap();
            let request = server.join().unwrap();
            assert!(request.starts_with(&format!("POST /uuid?{query} HTTP/")), "{request}");
        }
    }

    #[test]
    fn a_ping_goes_where_its_signal_says() {
        let line = |url: &str, signal| request(url, signal, &[]).lines().next().unwrap().to_owned();
        assert_eq!(line("https://h/uuid", Signal::Start), "url = \"https://h/uuid/start\"");
        assert_eq!(line("https://h/uuid/", Signal::Success), "url = \"https://h/uuid\"");
        assert_eq!(
            line("https://h/k/n8n?create=1", Signal::Fail),
            "url = \"https://h/k/n8n/fail?create=1\""
        );
        // What people tag an address with is for them alone.
        assert_eq!(line("https://h/k#n8n", Signal::Fail), "url = \"https://h/k/fail\"");
        assert_eq!(line("https://h/k/#a?b#c", Signal::Start), "url = \"https://h/k/start\"");
        assert_eq!(
            line("https://h/k?a=1#n8n", Signal::Success),
            "url = \"https://h/k?a=1\""
        );
        assert_eq!(line("http://h/\"x", Signal::Success), "url = \"http://h/\\\"x\"");
        assert!(request("http://h", Signal::Fail, &["a \"b\"".into(), "c\\".into()])
            .contains("data-raw = \"a \\\"b\\\"\\nc\\\\\"\n"));
    }
}
