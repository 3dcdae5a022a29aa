//! The drill of a snapshot: a Redis of its own loads it, and counts.

use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use anyhow::{anyhow, bail, ensure, Context as _, Result};

use super::replies::{fields, keys, CHECKER};
use super::server::{Redis, START};
use super::{verify, MODULES_FACT};
use crate::components::drill::{check_recorded, DrillEnv, Drilled, Inconclusive, Stopwatch, JOURNAL};
use crate::engine::{tells_ended_container, Exec, ScratchContainer};
use crate::formats::tar;
use crate::process::{hinted, Input};
use crate::stream::read::read;

/// Where the snapshot lies in the container. Not on the image's volume, which the entry point may give another owner.
const DIR: &str = "/tmp";
const NAME: &str = "n8n-backup-drill.rdb";
const PORT: u16 = 6379;
/// Nobody, by address and port.
const MASTER: &str = "127.0.0.1 1";

/// Loads the snapshot and compares the number of keys with what `redis-check-rdb` finds in the file.
///
/// The server is a replica of nobody: only such a one keeps the keys whose time has run out since the snapshot was
/// taken, so that the numbers can be compared exactly, whenever the test is made.
///
/// # Errors
/// What differs or fails; with [`Inconclusive`] when the test could not be made.
pub fn drill<'a>(env: &DrillEnv<'_>, file: &Path) -> Result<Drilled<'a>> {
    let context = env.app;
    let watch = Stopwatch::start();
    let summary = verify(context, file)?;
    check_recorded(env.point, "redis.", &[], &super::facts(&summary))?;

    let image = env.image_of(&context.config.redis_container, "BACKUP_REDIS_CONTAINER")?;
    env.check_room(&image, summary.bytes)?;
    let port = PORT.to_string();
    let arguments = [
        "--port",
        &port,
        "--dir",
        DIR,
        "--dbfilename",
        NAME,
        "--appendonly",
        "no",
        "--save",
        "",
        "--databases",
        "1024",
        "--replicaof",
        MASTER,
    ];
    let mut argv = vec!["-c", START, "sh"];
    argv.extend(arguments);
    // What the live server's modules have stored, only they can load.
    for module in env
        .point
        .fact(MODULES_FACT)
        .iter()
        .flat_map(|modules| modules.split("; "))
    {
        argv.push("--loadmodule");
        argv.extend(module.split(' '));
    }
    let mut server = env.container(&image, &argv)?;
    put(env, &server, file, summary.bytes)?;
    server.start().context(Inconclusive)?;
    let loaded = loaded(env, &mut server)?;
    let held = held(env, &server)?;
    match held {
        Some(held) => ensure!(
            held == loaded,
            "Redis loaded {loaded} keys, and the snapshot holds {held}"
        ),
        None => {
            return Err(anyhow!(
                "the image has neither redis-check-rdb nor valkey-check-rdb: {loaded} keys were loaded, and cannot be compared"
            )
            .context(Inconclusive))
        }
    }
    let taken: Option<u64> = env.point.fact("redis.keys").and_then(|keys| keys.parse().ok());
    if let Some(taken) = taken.filter(|taken| *taken != loaded) {
        // The manifest's number is of the moment after the save; the snapshot is of the moment it began.
        JOURNAL.info(format_args!(
            "Redis held {taken} keys when the save had ended, and {loaded} are in the snapshot: they changed meanwhile"
        ));
    }
    Ok(watch.drilled(format!("{loaded} keys")))
}

/// Copies the snapshot into the container, readable by whoever the server runs as.
fn put(env: &DrillEnv<'_>, server: &ScratchContainer, file: &Path, bytes: u64) -> Result<()> {
    let header = tar::file_header(NAME, bytes, 0o644)?;
    let end = tar::end_of_file(bytes);
    let mut chain = env.app.chain();
    let contents = read(&env.app.config, &mut chain, file)?;
    let (stdin, stdout) = chain.stream("docker cp", server.unpack(DIR), Input::Piped)?;
    let stdin = stdin.context("docker cp has no input")?;
    let archive = io::Cursor::new(header).chain(contents).chain(io::Cursor::new(end));
    chain.pump("copying the snapshot", archive, stdin, ());
    chain.pump("reading from docker cp", stdout, io::sink(), ());
    chain.finish().map(drop).context(Inconclusive)
}

/// Waits until the snapshot is loaded, and gives the number of keys.
fn loaded(env: &DrillEnv<'_>, server: &mut ScratchContainer) -> Result<u64> {
    let keyspace = server.wait(Duration::from_millis(50), |server| {
        let redis = Redis {
            docker: &env.docker,
            container: server.id(),
            at: vec!["-p".to_owned(), PORT.to_string()],
            login: None,
            stall: env.app.config.stall,
        };
        // While it does not listen yet, there is no answer.
        let Ok(replies) = redis.ask(&["INFO persistence", "INFO keyspace"]) else {
            return Ok(None);
        };
        let [persistence, keyspace] = replies.as_slice() else {
            bail!("too few replies from Redis")
        };
        let loading = fields(persistence).get("loading").is_none_or(|loading| loading != "0");
        Ok((!loading).then(|| keyspace.clone()))
    });
    let keyspace = keyspace.map_err(|error| {
        let text = format!("{error:#}");
        let error = error.context("Redis did not load the snapshot");
        if lacks_module(&text) {
            const UNTOLD: &str = "The recovery point does not tell all modules that Redis had loaded";
            const WHAT_TO_DO: &str = "allow Redis's user MODULE LIST (or name the modules in the arguments of the \
                server, before Redis 7), and make a backup";
            return error.context(hinted(UNTOLD, WHAT_TO_DO)).context(Inconclusive);
        }
        match tells_of_snapshot(&text) {
            true => error,
            false => error.context(Inconclusive),
        }
    })?;
    keys(&keyspace).context("INFO keyspace is not understood")
}

/// Whether Redis speaks of the snapshot: `Short read or OOM loading DB`, `Wrong signature trying to load DB from file`,
/// `Can't handle RDB format version`. It may as well have found fault with its arguments.
fn tells_of_snapshot(text: &str) -> bool {
    text.contains("DB") || tells_ended_container(text)
}

/// Whether Redis lacks a module that has stored something in the snapshot: `The RDB file contains module data I can't
/// load: no matching module type 'counter01'`.
fn lacks_module(text: &str) -> bool {
    text.contains("module") && text.contains("can't load")
}

/// The number of keys that `redis-check-rdb` finds in the snapshot; none where the image has no such program.
fn held(env: &DrillEnv<'_>, server: &ScratchContainer) -> Result<Option<u64>> {
    let path = format!("{DIR}/{NAME}");
    let check = env
        .docker
        .exec(server.id(), Exec::default(), &[&CHECKER[..], &[&path]].concat());
    let mut output = env.docker.answer("redis-check-rdb", check, None)?;
    // Without a shell in the image, by each name.
    for name in ["redis-check-rdb", "valkey-check-rdb"] {
        if matches!(output.code, Some(126 | 127)) {
            let check = env.docker.exec(server.id(), Exec::default(), &[name, &path]);
            output = env.docker.answer(name, check, None)?;
        }
    }
    let text = output.text();
    match keys_read(&text) {
        Some(keys) if output.success => Ok(Some(keys)),
        // 126 and 127: it cannot be run, or is not there.
        _ if matches!(output.code, Some(126 | 127)) => Ok(None),
        _ => bail!("redis-check-rdb finds fault with the snapshot: {text}{}", output.stderr),
    }
}

/// The number in the line `[info] 5 keys read`.
fn keys_read(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.ends_with(" keys read"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_says_of_the_snapshot_is_told_from_the_rest() {
        assert!(tells_of_snapshot(
            "the container has ended: Short read or OOM loading DB. Unrecoverable error"
        ));
        assert!(!tells_of_snapshot(
            "Fatal error, can't open config file '/data/redis-server': No such file"
        ));
    }

    #[test]
    fn a_module_that_is_missing_is_told_from_a_broken_snapshot() {
        for text in [
            "The RDB file contains module data I can't load: no matching module type 'counter01'",
            "The RDB file contains AUX module data I can't load: no matching module 'search'",
        ] {
            assert!(lacks_module(text), "{text}");
        }
        assert!(!lacks_module("Short read or OOM loading DB. Unrecoverable error"));
    }

    #[test]
    fn the_count_of_the_checker_is_read() {
        let text =
            "[offset 151] \\o/ RDB looks OK! \\o/\n[info] 5 keys read\n[info] 3 expires\n[info] 1 already expired";
        assert_eq!(keys_read(text), Some(5));
        assert_eq!(keys_read("[offset 0] Checking RDB file"), None);
    }
}
