//! Servers on the loopback that a test talks to.

// A test that cannot go on is to panic.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use super::done;

/// A request as the server has got it.
#[derive(Debug)]
pub struct Request {
    /// `POST /path`.
    pub line: String,
    /// What came with it.
    pub body: String,
}

/// Serves HTTP on loopback and passes each request on. The first `failures` requests are answered with 503.
///
/// # Panics
/// When there is no port.
pub fn serve(failures: usize) -> (String, Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, requests) = mpsc::channel();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let request = read(&mut stream);
            let status = if number < failures { "503 Busy" } else { "200 OK" };
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            if sender.send(request).is_err() {
                return;
            }
        }
    });
    (address, requests)
}

fn read(stream: &mut TcpStream) -> Request {
    let mut reader = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).unwrap();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    Request {
        line: first.rsplit_once(' ').unwrap().0.to_owned(),
        body: String::from_utf8(body).unwrap(),
    }
}

/// The next request.
///
/// # Panics
/// When none comes.
pub fn next(requests: &Receiver<Request>) -> Request {
    requests.recv_timeout(Duration::from_secs(20)).unwrap()
}

/// `rclone serve` on a free port, with a password; killed when this is dropped.
pub struct Rclone {
    child: Child,
    protocol: &'static str,
    /// What is served.
    pub dir: PathBuf,
    port: u16,
}

impl Rclone {
    /// Serves `dir`, which is made, by `webdav` or `sftp`.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn start(dir: &Path, protocol: &'static str) -> Self {
        fs::create_dir_all(dir).unwrap();
        let port = free_port();
        Self {
            child: Self::serve(protocol, dir, port),
            protocol,
            dir: dir.to_owned(),
            port,
        }
    }

    /// What a remote that leads there has in rclone's configuration.
    pub fn section(&self) -> String {
        let mut obscure = Command::new("rclone");
        obscure.args(["obscure", "secret"]);
        let password = done(obscure);
        let (protocol, port) = (self.protocol, self.port);
        let place = match protocol {
            "webdav" => format!("url = http://127.0.0.1:{port}\nvendor = other\n"),
            _ => format!("host = 127.0.0.1\nport = {port}\n"),
        };
        format!("type = {protocol}\n{place}user = me\npass = {}\n", password.trim())
    }

    fn serve(protocol: &str, dir: &Path, port: u16) -> Child {
        let child = Command::new("rclone")
            .args(["--config", "/dev/null", "serve", protocol])
            .arg(dir)
            .args([
                "--addr",
                &format!("127.0.0.1:{port}"),
                "--user",
                "me",
                "--pass",
                "secret",
            ])
            .env("RCLONE_CACHE_DIR", dir.with_extension("cache"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "the {protocol} server does not answer");
            sleep(Duration::from_millis(50));
        }
        child
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Serves the same again.
    pub fn restart(&mut self) {
        self.child = Self::serve(self.protocol, &self.dir, self.port);
    }

    /// Sends it a signal, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let mut kill = Command::new("kill");
        kill.args(["-s", name, &self.child.id().to_string()]);
        done(kill);
    }

    /// How many bytes have arrived.
    pub fn bytes(&self) -> u64 {
        let root = self.dir.join("n8n-backups");
        files(&root)
            .iter()
            .map(|name| fs::metadata(root.join(name)).map_or(0, |meta| meta.len()))
            .sum()
    }
}

/// A port that stays free until it is used, and while its server is restarted: none of those that the kernel gives to
/// whoever asks for any.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id() + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + (number % 20_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Drop for Rclone {
    fn drop(&mut self) {
        self.kill();
    }
}

/// All files below `dir`, by their paths below it, in order.
pub fn files(dir: &Path) -> Vec<String> {
    let mut find = Command::new("find");
    find.arg(dir).args(["-type", "f", "-printf", "%P\\n"]);
    let said = find.output().unwrap();
    let mut names: Vec<String> = String::from_utf8_lossy(&said.stdout)
        .lines()
        .map(str::to_owned)
        .collect();
    names.sort();
    names
}
