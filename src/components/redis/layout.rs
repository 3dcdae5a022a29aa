//! Where a Redis keeps its data.

use std::path::Path;

use anyhow::{ensure, Context as _, Result};

use crate::engine::Docker;
use crate::process::hinted;

/// Refuses a directory from which the data go with the container.
pub(super) fn check_kept(docker: &Docker, container: &str, dir: &str) -> Result<()> {
    let mounts = docker.mounts(container)?;
    ensure!(
        mounts.iter().any(|mount| Path::new(dir).starts_with(mount)),
        hinted(
            format_args!(
                "Redis keeps its data in {dir}, which lies on no volume of {container}: what is restored there would go with \
                 the container"
            ),
            "mount a volume there, or leave Redis out (restore-all --skip redis)"
        )
    );
    Ok(())
}

/// How the live Redis keeps its data.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) dir: String,
    pub(super) snapshot: String,
    pub(super) append_only: bool,
    pub(super) append_file: String,
    /// Redis 7 and later keep the append-only file in a directory of this name.
    pub(super) append_dir: Option<String>,
    pub(super) databases: String,
    /// The modules that are loaded from files, each with its arguments.
    pub(super) modules: Vec<Vec<String>>,
}

impl Layout {
    /// What CONFIG GET answers, by setting; without an answer what the official image is set to.
    pub(super) fn new(value: impl Fn(&str) -> Option<String>) -> Self {
        let or = |name: &str, default: &str| value(name).unwrap_or_else(|| default.to_owned());
        Self {
            dir: or("dir", "/data"),
            snapshot: or("dbfilename", "dump.rdb"),
            append_only: or("appendonly", "no") == "yes",
            append_file: or("appendfilename", "appendonly.aof"),
            append_dir: value("appenddirname"),
            databases: or("databases", "16"),
            modules: Vec::new(),
        }
    }

    /// From the arguments of a server that cannot be asked.
    ///
    /// # Errors
    /// When a configuration file or a script may say anything: to guess would be to restore past the live data.
    pub(super) fn of_arguments(arguments: &[String]) -> Result<Self> {
        let arguments = words(arguments).filter(|words| tell_all(words));
        let arguments = &arguments.context("its arguments do not tell")?[..];
        let layout = Self::new(|name| {
            let option = format!("--{name}");
            arguments
                .windows(2)
                .rev()
                .find(|pair| pair[0].eq_ignore_ascii_case(&option))
                .map(|pair| pair[1].clone())
        });
        let modules = modules_of(arguments);
        Ok(Self { modules, ..layout })
    }

    /// The entries of the directory that hold data.
    pub(super) fn names(&self) -> Vec<&str> {
        let append_dir = self.append_dir.as_deref().unwrap_or("appendonlydir");
        vec![&self.snapshot, &self.append_file, append_dir]
    }
}

/// The arguments, with an option that is one word with its value (`--dir /data`) in words of their own, as Redis reads
/// it; none where such a word is quoted in a way that is not read here.
fn words(arguments: &[String]) -> Option<Vec<String>> {
    let quotes = ['"', '\'', '\\'];
    let unquoted = |word: &str| {
        let within = |quote| word.strip_prefix(quote)?.strip_suffix(quote);
        let word = within('"').or_else(|| within('\'')).unwrap_or(word);
        (!word.contains(quotes)).then(|| word.to_owned())
    };
    let mut words = Vec::new();
    for argument in arguments {
        if !argument.starts_with("--") {
            words.push(argument.clone());
        } else if argument.contains('\n') {
            // The next line would be another option.
            return None;
        } else {
            words.extend(
                argument
                    .split_ascii_whitespace()
                    .map(unquoted)
                    .collect::<Option<Vec<_>>>()?,
            );
        }
    }
    Some(words)
}

/// Whether the arguments of a container are those of the server itself, and nothing else says how it keeps its data.
fn tell_all(arguments: &[String]) -> bool {
    const SERVERS: [&str; 2] = ["redis-server", "valkey-server"];
    let base = |word: &str| word.rsplit('/').next().unwrap_or_default().to_owned();
    let server = arguments.iter().position(|word| SERVERS.contains(&base(word).as_str()));
    let (starters, options) = match server {
        Some(at) => (&arguments[..at], &arguments[at + 1..]),
        // The entry point of the official images adds the server to options.
        None => arguments.split_at(arguments.iter().position(|word| word.starts_with("--")).unwrap_or(0)),
    };
    let is_by_entry_point = starters.last().is_some_and(|word| base(word) == "docker-entrypoint.sh");
    (server.is_some() || is_by_entry_point)
        && !starters.iter().any(|word| word.starts_with('-') && word.ends_with('c'))
        && options.first().is_none_or(|word| word.starts_with("--"))
        && !options
            .iter()
            .any(|word| word.ends_with(".conf") || word.eq_ignore_ascii_case("--include"))
}

/// The modules that the arguments of a server have it load.
pub(super) fn modules_of(arguments: &[String]) -> Vec<Vec<String>> {
    let arguments = words(arguments).unwrap_or_else(|| arguments.to_vec());
    let options = arguments.split(|argument| argument.eq_ignore_ascii_case("--loadmodule"));
    let values = |words: &[String]| {
        words
            .iter()
            .take_while(|word| !word.starts_with("--"))
            .cloned()
            .collect()
    };
    options.skip(1).map(values).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_tell_where_a_server_itself_gets_them() {
        let tell = |line: &str| tell_all(&line.split('|').map(str::to_owned).collect::<Vec<_>>());
        for line in [
            "redis-server",
            "docker-entrypoint.sh|redis-server|--port|6386|--requirepass|let me in",
            "tini|--|/usr/local/bin/docker-entrypoint.sh|valkey-server|--save|60 1",
            "docker-entrypoint.sh|--appendonly|yes",
        ] {
            assert!(tell(line), "{line}");
        }
        for line in [
            "sh|-c|exec redis-server --dir /data/sub",
            "docker-entrypoint.sh|sh|-c|redis-server --dir /data/sub",
            "docker-entrypoint.sh|bash|-lc|redis-server|--dir",
            "docker-entrypoint.sh|redis-server|/etc/redis.conf",
            "redis-server|-",
            "redis-server|--port|1|--include|/etc/x",
            "/start.sh",
            "/opt/bitnami/scripts/redis/entrypoint.sh|/opt/bitnami/scripts/redis/run.sh",
            "",
        ] {
            assert!(!tell(line), "{line}");
        }
    }

    #[test]
    fn a_server_that_cannot_be_asked_is_known_by_its_arguments() {
        let arguments: Vec<String> = "redis-server --port 6386 --APPENDONLY yes --dbfilename n8n.rdb --loadmodule /m/a.so 1 2 --save 60 1 --loadmodule /m/b.so"
            .split(' ')
            .map(str::to_owned)
            .collect();
        let layout = Layout::of_arguments(&arguments).unwrap();
        assert_eq!((layout.dir.as_str(), layout.snapshot.as_str()), ("/data", "n8n.rdb"));
        assert!(layout.append_only);
        assert_eq!(layout.modules, [vec!["/m/a.so", "1", "2"], vec!["/m/b.so"]]);
        assert_eq!(layout.names(), ["n8n.rdb", "appendonly.aof", "appendonlydir"]);
    }

    #[test]
    fn an_option_that_is_one_word_with_its_value_is_read_as_redis_does() {
        let layout = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            Layout::of_arguments(&words)
        };
        let hidden = ["--rename-command", "CONFIG", ""];
        let read = layout(
            &[
                &["redis-server", "--dir /data/sub", "--appendonly  yes ", "--save \"\""],
                &hidden[..],
            ]
            .concat(),
        );
        let read = read.unwrap();
        assert_eq!((read.dir.as_str(), read.append_only), ("/data/sub", true));
        let read = layout(&[
            "docker-entrypoint.sh",
            "--DIR '/data/sub'",
            "--dbfilename",
            "a b \"c\".rdb",
        ])
        .unwrap();
        assert_eq!(
            (read.dir.as_str(), read.snapshot.as_str()),
            ("/data/sub", "a b \"c\".rdb")
        );
        let read = layout(&["redis-server", "--loadmodule /m/a.so 1", "--port 1"]).unwrap();
        assert_eq!(read.modules, [["/m/a.so", "1"]]);
        for words in [
            ["redis-server", "--dir \"/data/a b\""],
            ["redis-server", "--dir \"/da\\x74a\""],
            ["redis-server", "--save 60 1\ndir /data/sub"],
            ["redis-server", "--include /data/more"],
        ] {
            assert!(layout(&words).is_err(), "{words:?}");
        }
    }
}
