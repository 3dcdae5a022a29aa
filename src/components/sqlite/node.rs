//! The program that reads and proves a database: by Node.js of n8n's image, in n8n's container or one that we made.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{anyhow, ensure, Context as _, Error, Result};

use crate::app::App;
use crate::components::drill::Migrations;
use crate::engine::{Docker, Exec};
use crate::formats::json::Json;
use crate::formats::n8n::Digests;
use crate::formats::text::ascii;
use crate::process::{hinted, Chain, ChildInput, ChildOutput, Count, Failed, Input, Observer, Pending, BLOCK};
use crate::stream::read::read;

const RUN: &str = include_str!("run.sh");
const PROGRAM: &str = include_str!("database.js");

/// How long somebody else may lock the database.
const LOCK_WAIT: Duration = Duration::from_secs(60);
/// What n8n's container sets for n8n is not for the program.
const PLAIN_NODE: [(&str, &str); 2] = [("NODE_OPTIONS", ""), ("NODE_NO_WARNINGS", "1")];
/// Names and numbers of tables; names of files.
const MAX_ANSWER: usize = 256 << 20;
/// What the program waits for with a copy, until that was sent.
const TAKEN: &[u8] = b"taken\n";

/// What was found in a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Its length in bytes.
    pub length: u64,
    /// How it keeps what was not committed: `wal`, `delete`, ...; empty where nobody asked.
    pub journal: String,
    /// Whose the live database is, as `UID:GID:MODE`; empty where it is no copy.
    pub owner: String,
    /// Where the live database is, where a symbolic link below what is mounted leads to that; else empty.
    pub link: String,
    /// The version of SQLite that read it.
    pub version: String,
    /// The rows of each table.
    pub tables: Vec<(String, u64)>,
    /// What the next backup's workflows are compared with; none where it is no copy.
    pub workflows: Option<Digests>,
}

impl Contents {
    fn of(json: &Json) -> Option<Self> {
        let text = |name: &str| json.get(name).and_then(Json::as_str).unwrap_or_default().to_owned();
        let tables = json.get("tables").map(Json::fields).unwrap_or_default().iter();
        Some(Self {
            length: number(json.get("length")?)?,
            journal: text("journal"),
            owner: text("owner"),
            link: text("link"),
            version: text("version"),
            tables: tables
                .map(|(name, rows)| Some((name.clone(), number(rows)?)))
                .collect::<Option<_>>()?,
            workflows: match json.get("workflows") {
                Some(found) => Some(digests(found)?),
                None => None,
            },
        })
    }

    /// The rows of all tables.
    pub fn rows(&self) -> u64 {
        self.tables.iter().fold(0, |sum, (_, rows)| sum.saturating_add(*rows))
    }
}

fn digests(json: &Json) -> Option<Digests> {
    let entry = |(id, told): &(String, Json)| {
        let [digest, name, published @ ..] = told.items() else {
            return None;
        };
        let digest = u64::from_str_radix(digest.as_str()?, 16).ok()?;
        let published = published.first().and_then(Json::as_str).map(ascii);
        Some((ascii(id), (digest, ascii(name.as_str()?), published)))
    };
    json.fields().iter().map(entry).collect::<Option<_>>().map(Digests)
}

fn number(json: &Json) -> Option<u64> {
    match json {
        Json::Number(digits) => digits.parse().ok(),
        _ => None,
    }
}

/// Where the program runs.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    pub app: &'a App,
    pub docker: &'a Docker,
    pub container: &'a str,
    /// What the names of n8n's tables begin with, where that is known.
    pub prefix: Option<&'a str>,
}

impl<'a> Node<'a> {
    /// For n8n's tables as its containers tell of them.
    pub fn new(app: &'a App, docker: &'a Docker, container: &'a str) -> Self {
        let found = &app.config.found;
        Self {
            app,
            docker,
            container,
            prefix: found.is_told().then_some(&found.table_prefix),
        }
    }

    fn command(&self, verb: &str, file: &str, more: &[&str]) -> Command {
        let (wait, told) = (self.wait(), self.told());
        let how = Exec {
            interactive: true,
            env: told.as_slice(),
            ..Exec::default()
        };
        let argv = ["sh", "-c", RUN, "sh", PROGRAM, verb, file, &wait];
        self.docker.exec(self.container, how, &[&argv, more].concat())
    }

    /// What tells the program which of the tables are n8n's.
    fn told(&self) -> Option<(&'static str, &'a str)> {
        self.prefix.map(|prefix| ("DB_TABLE_PREFIX", prefix))
    }

    /// How long it waits for a lock, in milliseconds.
    fn wait(&self) -> String {
        LOCK_WAIT.min(self.app.config.stall / 2).as_millis().to_string()
    }

    /// Leads tables whose names end with one of `names`, as a dump, past `observer`, and gives it back.
    pub fn rows<O: Observer>(&self, file: &str, names: &[&str], observer: O) -> Result<O> {
        let wait = self.wait();
        let argv = [&["node", "-e", PROGRAM, "--", "rows", file, &wait], names].concat();
        let mut chain = self.app.chain();
        let command = self.docker.exec_leashed(self.container, &PLAIN_NODE, &argv);
        let (_, stream) = chain.stream("node", command, Input::Leash)?;
        let seen = chain.pump("reading tables", stream, io::sink(), observer);
        let finished = chain.finish().map_err(|error| explained(error, file))?;
        seen.get(&finished)
    }

    /// Puts rows into tables in one transaction. Gives the columns that these lack; then nothing was changed.
    pub fn put(&self, file: &str, request: &Json) -> Result<Vec<String>> {
        let how = Exec {
            interactive: true,
            env: &PLAIN_NODE,
            ..Exec::default()
        };
        let argv = ["node", "-e", PROGRAM, "--", "put", file, &self.wait()];
        let mut chain = self.app.chain();
        let (stdin, stdout) = chain.stream("node", self.docker.exec(self.container, how, &argv), Input::Piped)?;
        let stdin = stdin.context("node has no input")?;
        // Cut off, it is no JSON, and nothing is done.
        chain.pump("passing on the rows", io::Cursor::new(request.to_string()), stdin, ());
        let answer = chain.collect("reading from node", stdout, MAX_ANSWER);
        let finished = chain.finish().map_err(|error| explained(error, file))?;
        let text = String::from_utf8(answer.get(&finished)?).context("what node says is no text")?;
        let answer = Json::parse(text.trim()).context("what node says is not understood")?;
        let lacking = answer
            .get("lacking")
            .context("what node says is not understood")?
            .items();
        Ok(lacking.iter().filter_map(Json::as_str).map(str::to_owned).collect())
    }

    /// What the program answers.
    fn ask(&self, verb: &str, file: &str) -> Result<Json> {
        self.ask_with(verb, file, &[])
    }

    fn ask_with(&self, verb: &str, file: &str, more: &[&str]) -> Result<Json> {
        let mut chain = self.app.chain();
        let (_, stdout) = chain.spawn("node", self.command(verb, file, more), Input::Leash)?;
        let answer = chain.collect("reading from node", stdout, MAX_ANSWER);
        let answer = chain.finish().and_then(|finished| answer.get(&finished));
        let answer = answer.map_err(|error| explained(error, file))?;
        let text = String::from_utf8(answer).context("what node says is no text")?;
        Json::parse(text.trim()).context("what node says is not understood")
    }

    /// Proves a database that nobody else works with, and counts its rows.
    pub fn examine(&self, file: &str) -> Result<Contents> {
        Contents::of(&self.ask("examine", file)?).context("what node says is not understood")
    }

    /// The journal mode and the length of a database below a `mount`, without a look at what is in it.
    pub fn probe(&self, file: &str, mount: &str) -> Result<Contents> {
        Contents::of(&self.ask_with("probe", file, &[mount])?).context("what node says is not understood")
    }

    /// Brings what stands in the log of a database into its file.
    pub fn checkpoint(&self, file: &str) -> Result<()> {
        self.ask("checkpoint", file).map(drop)
    }

    /// Prints what n8n has encrypted in a database, in a container that does not outlive us.
    pub fn sealed(&self, file: &str) -> Command {
        let env: Vec<_> = PLAIN_NODE.into_iter().chain(self.told()).collect();
        let how = Exec {
            env: &env,
            ..Exec::default()
        };
        let argv = ["node", "-e", PROGRAM, "--", "sealed", file, "0"];
        self.docker.exec(self.container, how, &argv)
    }

    /// How many migrations of n8n the database has seen, and the newest; none where it is not n8n's.
    pub fn migrations(&self, file: &str) -> Result<Option<Migrations>> {
        let answer = self.ask("migrations", file)?;
        let newest = answer.get("newest").and_then(Json::as_str);
        let found = answer.get("count").and_then(number).zip(newest);
        Ok(found.map(|(count, newest)| Migrations {
            count,
            newest: newest.to_owned(),
        }))
    }

    /// Leaves every workflow inactive, and no execution waiting. Gives how many were active; none where there is no table of
    /// workflows.
    pub fn deactivate(&self, file: &str) -> Result<Option<u64>> {
        Ok(self.ask("deactivate", file)?.get("count").and_then(number))
    }

    /// Deletes these credentials, and those that hold nothing.
    pub fn forget(&self, file: &str, credentials: &[String]) -> Result<()> {
        let ids: Vec<&str> = credentials.iter().map(String::as_str).collect();
        self.ask_with("forget", file, &ids).map(drop)
    }

    /// The files of binary data that executions name.
    pub fn binary_files(&self, file: &str) -> Result<Vec<String>> {
        let answer = self.ask("binary", file)?;
        let names = answer.get("names").map(Json::items).unwrap_or_default().iter();
        Ok(names.filter_map(Json::as_str).map(str::to_owned).collect())
    }

    /// Copies the database below a `mount` as it is at one moment, into a directory of this name. The copy is proven in
    /// there while it is sent, and removed however this ends.
    pub fn copy(&self, mut chain: Chain, file: &str, mount: &str, name: &str) -> Result<Copying> {
        let (stdin, stdout) = chain.spawn("node", self.command("copy", file, &[name, mount]), Input::Piped)?;
        let (send, begun) = mpsc::channel();
        let contents = chain.task("waiting for the copy", move |clock| {
            let mut stdout = BufReader::with_capacity(BLOCK, stdout);
            let mut line = || loop {
                let mut line = Vec::new();
                stdout.by_ref().take(MAX_ANSWER as u64).read_until(b'\n', &mut line)?;
                clock.tick();
                match line.as_slice() {
                    // The program tells why.
                    [] => {
                        return Err(io::Error::new(ErrorKind::BrokenPipe, "the copy was not proven to its end").into())
                    }
                    b"\n" => {}
                    line => {
                        let json = std::str::from_utf8(line).map_err(Error::new).and_then(Json::parse);
                        let told = json.and_then(|json| {
                            let contents = Contents::of(&json).context("it tells of no length")?;
                            let path = json.get("path").and_then(Json::as_str).unwrap_or_default().to_owned();
                            Ok((path, contents))
                        });
                        return told.context("what node says of the copy is not understood");
                    }
                }
            };
            // Nobody waits for it where the chain was given up.
            let _ = send.send(line()?);
            line().map(|(_, contents)| contents)
        });
        let Ok((path, found)) = begun.recv() else {
            return Err(match chain.finish() {
                Ok(_) => anyhow!("node ended before it had made a copy"),
                Err(error) => explained(error, file),
            });
        };
        // Not by docker cp, though that takes half the time: meanwhile the engine answers nobody who asks for the container.
        let command = self.docker.exec_leashed(self.container, &[], &["cat", &path]);
        let (_, copy) = chain.stream("docker exec cat", command, Input::Leash)?;
        Ok(Copying {
            chain,
            journal: found.journal,
            owner: found.owner,
            link: found.link,
            stream: Whole {
                copy,
                left: found.length,
                stdin,
            },
            contents,
        })
    }

    /// Unpacks a backup into a new file of the container.
    pub fn copy_in(&self, backup: &Path, file: &str) -> Result<()> {
        const COPY: &str = "umask 077; cat >\"$1\"; sync \"$1\" 2>/dev/null || sync; wc -c <\"$1\"";
        let mut chain = self.app.chain();
        let contents = read(&self.app.config, &mut chain, backup)?;
        let how = Exec {
            interactive: true,
            ..Exec::default()
        };
        let command = self.docker.exec(self.container, how, &["sh", "-c", COPY, "sh", file]);
        let (stdin, stdout) = chain.stream("docker exec", command, Input::Piped)?;
        let stdin = stdin.context("docker exec has no input")?;
        let count = chain.pump("unpacking the database", contents, stdin, Count::default());
        let written = chain.collect("reading from docker exec", stdout, 1 << 10);
        let finished = chain.finish()?;
        let (sent, written) = (count.get(&finished)?.0, written.get(&finished)?);
        let written = String::from_utf8_lossy(&written).trim().to_owned();
        ensure!(
            written == sent.to_string(),
            "{sent} bytes were sent, and {written} are there"
        );
        Ok(())
    }
}

/// A copy that is being sent.
pub struct Copying {
    pub chain: Chain,
    /// How the database keeps what was not committed.
    pub journal: String,
    /// Whose it is, as `UID:GID:MODE`.
    pub owner: String,
    /// Where it is, where a symbolic link below what is mounted leads to that.
    pub link: String,
    /// The bytes of the copy. They come to an end only where all of them were there.
    pub stream: Whole<ChildOutput>,
    /// What is in it, once it is proven.
    pub contents: Pending<Contents>,
}

/// The bytes of a copy, which are an error where they end too early. Tells the program in the container when they are here.
pub struct Whole<R> {
    copy: R,
    left: u64,
    stdin: Option<ChildInput>,
}

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.copy.read(buffer)?;
        let cut_off = n == 0 && self.left > 0 && !buffer.is_empty();
        self.left = match self.left.checked_sub(n as u64) {
            Some(left) if !cut_off => left,
            // What ended it tells more, if anything does.
            _ => {
                let text = "the copy was cut off, or is too long";
                return Err(io::Error::new(ErrorKind::BrokenPipe, text));
            }
        };
        if n == 0 && !buffer.is_empty() {
            if let Some(mut stdin) = self.stdin.take() {
                stdin.write_all(TAKEN)?;
            }
        }
        Ok(n)
    }
}

/// What stood against it, by the exit status of the program, and what to do.
pub fn explained(error: Error, file: &str) -> Error {
    let status = error.downcast_ref::<Failed>().and_then(|failed| failed.status?.code());
    let (what, hint) = match status {
        Some(65) => (
            "is damaged, or is no database that SQLite can read",
            "restore-sqlite brings back a backup of it; keep the damaged file, of which 'sqlite3 FILE .recover' may save more",
        ),
        Some(66) => (
            "cannot be opened",
            "n8n creates it when it starts; DB_SQLITE_DATABASE and N8N_USER_FOLDER of its container say where it is",
        ),
        Some(73) => (
            "has no room for a copy",
            "make room on Docker's disk (docker system df tells what takes it)",
        ),
        Some(75) => (
            "stays locked",
            "find out who writes to it for so long: another program than n8n, or a transaction without end",
        ),
        Some(78) => (
            "is not what n8n works with: its start script sets another DB_TYPE",
            "set DB_TYPE, and what else the script sets of the database, in the environment of n8n's container",
        ),
        _ => return error,
    };
    error.context(hinted(format_args!("The database {file} {what}"), hint))
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;
    use crate::config::Config;
    use crate::testing::{executable, sh, TempDir};

    #[test]
    fn what_is_encrypted_is_read_from_the_tables_that_all_else_is() {
        let dir = TempDir::new();
        executable(&dir.path().join("docker"), "");
        let app = App::new(Config::without_env_file(dir.path()).unwrap());
        let docker = Docker::locate(Some(dir.path().into()), Duration::from_secs(1)).unwrap();
        let told = |prefix| {
            let node = Node {
                prefix,
                ..Node::new(&app, &docker, "n8n")
            };
            let of = |command: Command| {
                let mut args = command.get_args().map(|arg| arg.to_string_lossy().into_owned());
                args.find(|arg| arg.starts_with("DB_TABLE_PREFIX="))
            };
            [of(node.sealed("/file")), of(node.command("migrations", "/file", &[]))]
        };
        assert_eq!(told(None), [None, None]);
        for prefix in ["", "x_"] {
            let expected = Some(format!("DB_TABLE_PREFIX={prefix}"));
            assert_eq!(told(Some(prefix)), [expected.clone(), expected]);
        }
    }

    #[test]
    fn a_program_that_hangs_is_not_taken_for_one_at_work() {
        let dir = TempDir::new();
        let program = |name: &str, script: &str| {
            let path = dir.path().join(name);
            executable(&path, format!("#!/bin/sh\n{script}\n"));
        };
        let sleep = ["/bin/sleep", "/usr/bin/sleep"]
            .into_iter()
            .find(|path| Path::new(path).exists());
        let sleep = sleep.unwrap();
        program("sleep", &format!("exec {sleep} 0.1"));
        let lines = |node: &str| {
            program("node", node);
            let mut run = sh(&format!("PATH={}:$PATH; export PATH; {RUN}", dir.path().display()));
            let mut run = run
                .args(["sh", PROGRAM, "examine", "/file", "1"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let leash = run.stdin.take();
            let mut lines = String::new();
            run.stdout.take().unwrap().read_to_string(&mut lines).unwrap();
            drop(leash);
            assert!(run.wait().unwrap().success());
            lines.len()
        };
        // What its start reads may be seen in parts.
        let hanging = lines(&format!("exec {sleep} 2"));
        assert!(hanging < 5, "{hanging}");
        let works = lines(&format!(
            "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo >/dev/null; {sleep} 0.2; done"
        ));
        assert!(works > 5, "{works}");
    }

    #[test]
    fn a_copy_ends_where_all_of_it_was_there() {
        let read = |copy: &[u8], left: u64| {
            let mut all = Vec::new();
            let stdin = None;
            Whole { copy, left, stdin }.read_to_end(&mut all).map(|_| all)
        };
        assert_eq!(read(b"abc", 3).unwrap(), b"abc");
        for (text, left) in [(&b"ab"[..], 3), (b"", 1), (b"abcd", 3)] {
            assert!(read(text, left).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_the_program_says_is_read() {
        let text = r#"{"journal":"wal","length":4096,"version":"3.53.3","tables":{"a b":3,"c":0}}"#;
        let contents = Contents::of(&Json::parse(text).unwrap()).unwrap();
        assert_eq!((contents.length, contents.rows()), (4096, 3));
        assert_eq!(contents.tables, [("a b".to_owned(), 3), ("c".to_owned(), 0)]);
        assert_eq!(contents.workflows, None);
        assert!(Contents::of(&Json::parse("{}").unwrap()).is_none());
        let text = r#"{"length":1,"workflows":{"w\n1":["00000000000000ff","A\tb",null],"x":["01","X","v"]}}"#;
        let told = Contents::of(&Json::parse(text).unwrap()).unwrap().workflows.unwrap();
        assert_eq!(
            told.text(),
            "w\\n1\t00000000000000ff\tA\\tb\nx\t0000000000000001\tX\tv\n"
        );
    }
}
