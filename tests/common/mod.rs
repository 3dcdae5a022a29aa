//! A sandbox for integration tests: an n8n project directory of its own with the installed scripts, and a stack of real
//! containers with names of its own, both gone when the sandbox is dropped, on a panic too.
//!
//! ```no_run
//! let sandbox = Sandbox::new("roundtrip").postgres().seeded().build();
//! let before = sandbox.fingerprint_postgres();
//! let outcome = sandbox.run("backup-postgres", &[]);
//! outcome.assert_success();
//! outcome.assert_messages("backup-postgres", &["INFO Starting PostgreSQL backup", "SUCCESS Backup completed: {} ({})"]);
//! ```
//!
//! Scripts run as cron runs them: an empty environment but for `PATH=/usr/bin:/bin`, another working directory, no
//! terminal. [`Sandbox::call`] changes that piece by piece.

// Each test binary uses its own part of this.
#![allow(dead_code)]

pub mod page;
pub mod servers;

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The port that the test stack's Redis listens on in its container.
pub const REDIS_PORT: &str = "6386";
/// The label that marks what belongs to a stack.
const LABEL: &str = "n8n-backup.test";
/// How long a script may take before the test fails.
const LIMIT: Duration = Duration::from_secs(120);
/// The PATH that cron gives.
const CRON_PATH: &str = "/usr/bin:/bin";

/// What a sandbox is to have; nothing but the directory unless asked for.
pub struct Builder {
    name: &'static str,
    postgres: bool,
    redis: bool,
    n8n: bool,
    volume: bool,
    seeded: bool,
    network: bool,
    kept: bool,
    env_file: bool,
    postgres_user: String,
    postgres_db: String,
    postgres_password: String,
    redis_password: String,
    server_args: Vec<[String; 2]>,
    lines: Vec<String>,
}

impl Builder {
    /// A PostgreSQL container.
    pub fn postgres(mut self) -> Self {
        self.postgres = true;
        self
    }

    /// PostgreSQL's data in a volume instead of memory, for a test that stops its container and goes on. New files are quick in
    /// memory, and slow on a disk that other tests have just removed thousands from.
    pub fn kept(mut self) -> Self {
        self.kept = true;
        self
    }

    /// A Redis container.
    pub fn redis(mut self) -> Self {
        self.redis = true;
        self
    }

    /// The volume with n8n's data, without any container.
    pub fn volume(mut self) -> Self {
        self.volume = true;
        self
    }

    /// The containers `n8n-main` and `n8n-worker`, and the volume that they share.
    pub fn n8n(mut self) -> Self {
        self.n8n = true;
        self
    }

    /// PostgreSQL, Redis and the volume.
    pub fn stack(self) -> Self {
        self.postgres().redis().volume()
    }

    /// Everything that is there gets awkward data.
    pub fn seeded(mut self) -> Self {
        self.seeded = true;
        self
    }

    /// The containers share an internal network.
    pub fn network(mut self) -> Self {
        self.network = true;
        self
    }

    /// The superuser of PostgreSQL, `n8n` unless said otherwise.
    pub fn postgres_user(mut self, name: &str) -> Self {
        name.clone_into(&mut self.postgres_user);
        self
    }

    /// The database, `n8n` unless said otherwise.
    pub fn postgres_db(mut self, name: &str) -> Self {
        name.clone_into(&mut self.postgres_db);
        self
    }

    /// The password of the superuser of PostgreSQL; connections in the container need none.
    pub fn postgres_password(mut self, password: &str) -> Self {
        password.clone_into(&mut self.postgres_password);
        self
    }

    /// A password that Redis demands.
    pub fn redis_password(mut self, password: &str) -> Self {
        password.clone_into(&mut self.redis_password);
        self
    }

    /// An argument for the PostgreSQL server; as often as needed.
    pub fn pg_arg(mut self, arg: &str) -> Self {
        self.server_args.push(["--pg-arg".to_owned(), arg.to_owned()]);
        self
    }

    /// An argument for the Redis server; as often as needed.
    pub fn redis_arg(mut self, arg: &str) -> Self {
        self.server_args.push(["--redis-arg".to_owned(), arg.to_owned()]);
        self
    }

    /// A setting for `.env`, with any value. It comes after those of the sandbox, so that it wins.
    pub fn env(self, name: &str, value: &str) -> Self {
        let line = env_line(name, value);
        self.env_text(&line)
    }

    /// A line for `.env` as it stands.
    pub fn env_text(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    /// No `.env` at all.
    pub fn no_env_file(mut self) -> Self {
        self.env_file = false;
        self
    }

    /// Makes the directory and starts the containers.
    ///
    /// # Panics
    /// When there is no Docker engine, or anything else fails.
    pub fn build(self) -> Sandbox {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("n8nbt-{}-{}-{number}", self.name, std::process::id());
        let root = std::env::temp_dir().join(&prefix);
        let sandbox = Sandbox {
            dir: root.join("my n8n"),
            root,
            prefix,
            containers: self.postgres || self.redis || self.n8n || self.volume,
            postgres_user: self.postgres_user.clone(),
            postgres_db: self.postgres_db.clone(),
            postgres_password: self.postgres_password.clone(),
            redis_password: self.redis_password.clone(),
            calls: AtomicU32::new(0),
        };
        sandbox.install();
        if self.env_file {
            let mut text = sandbox.env_file_text();
            for (variable, setting) in [
                ("TEST_PASSPHRASE", "BACKUP_GPG_PASSPHRASE"),
                ("TEST_COMPRESSOR", "BACKUP_COMPRESSOR"),
            ] {
                if let Some(value) = std::env::var_os(variable) {
                    let line = env_line(setting, &value.to_string_lossy());
                    let _ = writeln!(text, "{line}");
                }
            }
            for line in &self.lines {
                let _ = writeln!(text, "{line}");
            }
            sandbox.write(".env", &text);
        }
        self.start(&sandbox);
        sandbox
    }

    fn start(&self, sandbox: &Sandbox) {
        if !sandbox.containers {
            return;
        }
        engine();
        if self.postgres || self.redis || self.n8n {
            let mut up = sandbox.stack(&["up", &sandbox.prefix]);
            for (wanted, without) in [
                (self.postgres, "--no-postgres"),
                (self.redis, "--no-redis"),
                (self.n8n, "--no-n8n"),
            ] {
                if !wanted {
                    up.arg(without);
                }
            }
            if self.seeded {
                up.arg("--seed");
            }
            if self.network {
                up.arg("--network");
            }
            if !self.kept {
                up.arg("--pg-memory");
            }
            up.args(self.server_args.iter().flatten());
            done(up);
        }
        if self.seeded && self.redis {
            done(sandbox.stack(&["seed-redis", &sandbox.prefix]));
        }
        if self.seeded && (self.volume || self.n8n) {
            done(sandbox.stack(&["seed-volume", &sandbox.prefix]));
        } else if self.volume && !self.n8n {
            sandbox.make_volume(&sandbox.volume());
        }
    }
}

/// An n8n project directory and its stack.
pub struct Sandbox {
    root: PathBuf,
    dir: PathBuf,
    prefix: String,
    containers: bool,
    postgres_user: String,
    postgres_db: String,
    postgres_password: String,
    redis_password: String,
    calls: AtomicU32,
}

impl Sandbox {
    /// Begins a sandbox; `name` is a short word for the names of its containers.
    #[allow(clippy::new_ret_no_self)]
    pub fn new(name: &'static str) -> Builder {
        Builder {
            name,
            postgres: false,
            redis: false,
            n8n: false,
            volume: false,
            seeded: false,
            network: false,
            kept: false,
            env_file: true,
            postgres_user: "n8n".to_owned(),
            postgres_db: "n8n".to_owned(),
            postgres_password: String::new(),
            redis_password: String::new(),
            server_args: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// The n8n project directory. Its name has a blank.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path in the n8n project directory.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.dir.join(relative)
    }

    /// A path beside the n8n project directory, for what a test needs itself.
    pub fn aside(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    /// What the names of the sandbox's containers, volumes and networks begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The name of a container: `postgres`, `redis`, `n8n-main` or `n8n-worker`.
    pub fn container(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// The name of the volume with n8n's data.
    pub fn volume(&self) -> String {
        format!("{}_n8n_data", self.prefix)
    }

    /// Makes an empty volume that goes with the sandbox.
    pub fn make_volume(&self, name: &str) {
        self.docker(
            &["volume", "create"]
                .into_iter()
                .map(str::to_owned)
                .chain(self.labels())
                .chain([name.to_owned()])
                .collect::<Vec<_>>(),
        );
    }

    /// Options for `docker create` and the like, so that what is made goes with the sandbox.
    pub fn labels(&self) -> [String; 4] {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let label = "--label".to_owned();
        [
            label.clone(),
            format!("{LABEL}={}", self.prefix),
            label,
            format!("{LABEL}.created={}", now.as_secs()),
        ]
    }

    /// Writes a file of the project directory, mode 644.
    pub fn write(&self, relative: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(relative);
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// Appends a setting to `.env`; the last one of a name wins.
    pub fn set(&self, name: &str, value: &str) {
        let mut text = fs::read_to_string(self.path(".env")).unwrap_or_default();
        let _ = writeln!(text, "{}", env_line(name, value));
        self.write(".env", text);
    }

    /// A stand-in for docker that runs `script` first, with the arguments for docker, and the real one after it when the
    /// script has not left by then.
    pub fn stand_in_docker(&self, script: &str) -> PathBuf {
        let real = std::env::var_os("PATH")
            .into_iter()
            .flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>())
            .map(|dir| dir.join("docker"))
            .find(|file| file.is_file())
            .unwrap_or_else(|| panic!("docker is not on the PATH"));
        let real = shell_quoted(&real.to_string_lossy());
        self.stand_in(
            "docker",
            &format!("#!/bin/bash\nreal={real}\n{script}\nexec \"$real\" \"$@\"\n"),
        )
    }

    /// A stand-in for docker whose call number `nth` that matches the shell pattern `pattern` (blanks around the arguments)
    /// fails; every other is real.
    pub fn failing_docker(&self, pattern: &str, nth: u32) -> PathBuf {
        let count = self.aside(format!("count-{}", self.calls.fetch_add(1, Ordering::Relaxed)));
        let count = shell_quoted(&count.to_string_lossy());
        self.stand_in_docker(&format!(
            "case \" $* \" in {pattern}) echo x >>{count}; \
             if [ \"$(wc -l <{count})\" = {nth} ]; then echo 'stand-in: refused' >&2; exit 1; fi ;; esac"
        ))
    }

    /// A directory with an executable `name` of this text, for [`Call::path_first`].
    pub fn stand_in(&self, name: &str, script: &str) -> PathBuf {
        let dir = self.aside(format!("stand-in-{}", self.calls.fetch_add(1, Ordering::Relaxed)));
        let file = dir.join(name);
        let made = fs::create_dir(&dir)
            .and_then(|()| fs::write(&file, script))
            .and_then(|()| fs::set_permissions(&file, fs::Permissions::from_mode(0o755)));
        made.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        dir
    }

    /// Runs `scripts/NAME.sh` as cron would, to its end.
    pub fn run(&self, name: &str, args: &[&str]) -> Outcome {
        self.call(name).args(args).run()
    }

    /// Starts `scripts/NAME.sh` as cron would.
    pub fn spawn(&self, name: &str, args: &[&str]) -> Running<'_> {
        self.call(name).args(args).spawn()
    }

    /// Begins a call of `scripts/NAME.sh` that differs from cron's.
    pub fn call(&self, name: &str) -> Call<'_> {
        Call {
            sandbox: self,
            program: self.path(format!("scripts/{name}.sh")),
            args: Vec::new(),
            env: Vec::new(),
            path: CRON_PATH.into(),
            cwd: "/".into(),
            under: Vec::new(),
            terminal: None,
            into_log: false,
            limit: LIMIT,
        }
    }

    /// Begins a call of the installed binary itself.
    pub fn binary(&self) -> Call<'_> {
        Call {
            program: self.path("bin/n8n-backup"),
            ..self.call("")
        }
    }

    /// The published backups of a kind (`postgres`, `redis`, `n8n`, `env`, ...), by name: all files of its directory but
    /// those that begin with a dot.
    pub fn backups(&self, kind: &str) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = self
            .files(kind)
            .into_iter()
            .filter(|path| path.file_name().is_some_and(|name| !starts_with_dot(name)))
            .collect();
        found.sort();
        found
    }

    /// The only backup of a kind.
    pub fn backup(&self, kind: &str) -> PathBuf {
        let mut found = self.backups(kind);
        assert_eq!(found.len(), 1, "one backup expected in {kind}: {found:?}");
        found.remove(0)
    }

    /// What an unfinished run has left in the directory of a kind: files that begin with a dot, but for the two that
    /// belong there.
    pub fn leftovers(&self, kind: &str) -> Vec<PathBuf> {
        let mut found = self.files(kind);
        found.retain(|path| {
            path.file_name()
                .is_some_and(|name| starts_with_dot(name) && name != ".gitkeep" && name != ".lock")
        });
        found
    }

    fn files(&self, kind: &str) -> Vec<PathBuf> {
        let dir = self.path("backups").join(kind);
        match fs::read_dir(&dir) {
            Ok(items) => items.flatten().map(|item| item.path()).collect(),
            Err(_) => Vec::new(),
        }
    }

    /// Every path below the project directory with type, mode, size and contents, in order; without `logs` and lock
    /// files. Equal before and after when nothing was changed.
    pub fn listing(&self) -> Vec<String> {
        let mut found = Vec::new();
        list(&self.dir, &self.dir, &mut found);
        found.sort();
        found
    }

    /// The whole log.
    pub fn log(&self) -> String {
        self.log_from(0)
    }

    fn log_from(&self, offset: u64) -> String {
        let mut bytes = Vec::new();
        let log = self.path("logs/backup.log");
        // A test may have put something without an end there.
        if !log.is_file() {
            return String::new();
        }
        if let Ok(mut file) = File::open(log) {
            let _ = file
                .seek(SeekFrom::Start(offset))
                .and_then(|_| file.read_to_end(&mut bytes));
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn log_length(&self) -> u64 {
        fs::metadata(self.path("logs/backup.log")).map_or(0, |meta| meta.len())
    }

    /// What the whole stack holds, but for what belongs to the database itself: a dump does not hold that, and where the
    /// database is gone nothing else does.
    pub fn fingerprint(&self) -> String {
        let database = self.fingerprint_postgres();
        let lines = database
            .split_inclusive('\n')
            .filter(|line| !line.starts_with("database|"));
        [lines.collect(), self.fingerprint_redis(), self.fingerprint_volume()].concat()
    }

    /// Starts a container called `name` that does nothing and mounts what `mount` says, as docker's `-v` takes it.
    #[track_caller]
    pub fn run_idle(&self, name: &str, mount: &str) {
        let labels = self.labels();
        let mut args = vec![
            "run",
            "-d",
            "--name",
            name,
            "--network",
            "none",
            "--stop-timeout",
            "1",
            "-v",
            mount,
        ];
        args.extend(labels.iter().map(String::as_str));
        args.extend(["n8n-backup-test/busybox:1", "sleep", "86400"]);
        self.docker(&args);
    }

    /// Pauses a container. On a busy machine the engine may fail to freeze what works hard; then it is asked again.
    #[track_caller]
    pub fn pause(&self, container: &str) {
        for _ in 0..10 {
            let mut pause = Command::new("docker");
            pause.args(["pause", container]);
            if output(pause).status.success() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        self.docker(&["pause", container]);
    }

    /// Runs a docker command and gives its standard output.
    ///
    /// # Panics
    /// When it fails.
    pub fn docker<S: AsRef<OsStr>>(&self, args: &[S]) -> String {
        let mut command = Command::new("docker");
        command.args(args);
        done(command)
    }

    /// Runs SQL in the sandbox's database and gives the rows, fields separated by `|`.
    pub fn psql(&self, sql: &str) -> String {
        self.psql_in(&self.postgres_db, sql)
    }

    /// Runs SQL in another database of the same server.
    pub fn psql_in(&self, database: &str, sql: &str) -> String {
        let mut command = Command::new("docker");
        command
            .args(["exec", "-e", "PGUSER", "-e", "PGDATABASE"])
            .arg(self.container("postgres"))
            .args(["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql])
            .env("PGUSER", &self.postgres_user)
            .env("PGDATABASE", database);
        done(command)
    }

    /// The databases of the server, templates and `postgres` left out.
    pub fn databases(&self) -> Vec<String> {
        let all = self.psql_in(
            "postgres",
            "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres' ORDER BY 1",
        );
        all.lines().map(str::to_owned).collect()
    }

    /// Runs a command in the sandbox's Redis and gives the reply.
    pub fn redis(&self, args: &[&str]) -> String {
        let mut command = Command::new("docker");
        command.arg("exec");
        if !self.redis_password.is_empty() {
            command.args(["-e", "REDISCLI_AUTH"]);
        }
        command
            .arg(self.container("redis"))
            .args(["redis-cli", "-e", "-p", REDIS_PORT])
            .args(args)
            .env("REDISCLI_AUTH", &self.redis_password);
        done(command).trim_end().to_owned()
    }

    /// Everything that the database holds, as text.
    pub fn fingerprint_postgres(&self) -> String {
        fingerprint(self.stack(&["fingerprint-postgres", &self.prefix]))
    }

    /// Everything that another database of the same server holds, as text.
    pub fn fingerprint_postgres_of(&self, database: &str) -> String {
        fingerprint(self.stack(&["fingerprint-postgres", &self.prefix, database]))
    }

    /// Everything that Redis holds, as text.
    pub fn fingerprint_redis(&self) -> String {
        fingerprint(self.stack(&["fingerprint-redis", &self.prefix]))
    }

    /// Everything that the volume holds, as text.
    pub fn fingerprint_volume(&self) -> String {
        self.fingerprint_volume_named(&self.volume())
    }

    /// Everything that another volume holds, as text.
    pub fn fingerprint_volume_named(&self, volume: &str) -> String {
        fingerprint(self.stack(&["fingerprint-volume", volume]))
    }

    /// The stack script, with the names and passwords of the sandbox.
    fn stack(&self, args: &[&str]) -> Command {
        let mut command = Command::new(repository().join("tests/stack/stack.sh"));
        command
            .args(args)
            // [`engine`] has seen to them.
            .env("STACK_IMAGES", "made")
            .env("POSTGRES_USER", &self.postgres_user)
            .env("POSTGRES_DB", &self.postgres_db)
            .env("POSTGRES_PASSWORD", &self.postgres_password)
            .env("REDIS_PASSWORD", &self.redis_password);
        command
    }

    /// The settings that lead to the sandbox's stack and to nothing else, as they stand in its `.env`. A test without
    /// that file gives them by the environment: the defaults are names that this machine may use in earnest.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("POSTGRES_USER", self.postgres_user.clone()),
            ("POSTGRES_DB", self.postgres_db.clone()),
            ("REDIS_PORT", REDIS_PORT.to_owned()),
            ("REDIS_PASSWORD", self.redis_password.clone()),
            ("BACKUP_POSTGRES_CONTAINER", self.container("postgres")),
            ("BACKUP_REDIS_CONTAINER", self.container("redis")),
            (
                "BACKUP_N8N_CONTAINERS",
                [self.container("n8n-main"), self.container("n8n-worker")].join(" "),
            ),
            ("BACKUP_N8N_VOLUME", self.volume()),
            ("BACKUP_LOCK_FILE", self.lock_file().to_string_lossy().into_owned()),
        ]
    }

    /// The lock of backup-all and the restores.
    pub fn lock_file(&self) -> PathBuf {
        self.aside("lock")
    }

    fn env_file_text(&self) -> String {
        let mut text = String::from("# Settings of a scratch stack\n");
        for (name, value) in self.settings() {
            let _ = writeln!(text, "{}", env_line(name, &value));
        }
        text
    }

    /// Lays the scripts and the binary under test into the project directory, with the script that `make install` runs
    /// and a copy of the checkout that has this binary in its `bin`.
    fn install(&self) {
        let checkout = self.aside("checkout");
        let prepare = || -> std::io::Result<()> {
            fs::create_dir_all(checkout.join("bin"))?;
            fs::create_dir_all(checkout.join("logs"))?;
            fs::create_dir_all(&self.dir)?;
            symlink(program(), checkout.join("bin/n8n-backup"))?;
            fs::write(checkout.join("logs/.gitkeep"), "")?;
            for item in fs::read_dir(repository().join("backups"))?.flatten() {
                if item.path().join(".gitkeep").exists() {
                    let dir = checkout.join("backups").join(item.file_name());
                    fs::create_dir_all(&dir)?;
                    fs::write(dir.join(".gitkeep"), "")?;
                }
            }
            Ok(())
        };
        prepare().unwrap_or_else(|error| panic!("cannot prepare {}: {error}", self.root.display()));
        let mut copy = Command::new("cp");
        copy.arg("-R").arg(repository().join("scripts")).arg(&checkout);
        done(copy);
        let mut install = Command::new(checkout.join("scripts/make/install.sh"));
        install.env("N8N_DIR", &self.dir);
        done(install);
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if self.containers {
            let _ = self.stack(&["down", &self.prefix]).output();
        }
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// A call of a script, not yet run.
pub struct Call<'a> {
    sandbox: &'a Sandbox,
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    path: OsString,
    cwd: PathBuf,
    under: Vec<OsString>,
    terminal: Option<String>,
    into_log: bool,
    limit: Duration,
}

impl<'a> Call<'a> {
    /// An argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: &[S]) -> Self {
        self.args.extend(args.iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// A variable of the environment.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Another PATH.
    pub fn path(mut self, path: impl AsRef<OsStr>) -> Self {
        path.as_ref().clone_into(&mut self.path);
        self
    }

    /// Puts a directory before the PATH, for a stand-in of a program.
    pub fn path_first(mut self, dir: impl AsRef<OsStr>) -> Self {
        let mut path = dir.as_ref().to_owned();
        path.push(":");
        path.push(&self.path);
        self.path = path;
        self
    }

    /// Another working directory than `/`.
    pub fn cwd(mut self, dir: impl AsRef<Path>) -> Self {
        dir.as_ref().clone_into(&mut self.cwd);
        self
    }

    /// Runs it by way of another command, such as `["sh", "-c", "exec \"$@\" >&-", "sh"]`, which gets the call's words as
    /// further arguments.
    pub fn under<S: AsRef<OsStr>>(mut self, words: &[S]) -> Self {
        self.under = words.iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    /// Variables of the environment.
    pub fn envs(mut self, variables: &[(&str, String)]) -> Self {
        self.env
            .extend(variables.iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// Runs on a terminal, where `answer` is typed. Standard error is then part of standard output.
    pub fn terminal(mut self, answer: &str) -> Self {
        self.terminal = Some(answer.to_owned());
        self
    }

    /// Sends standard output and standard error to `logs/backup.log`, as the crontab line does.
    pub fn into_log(mut self) -> Self {
        self.into_log = true;
        self
    }

    /// How long it may take.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it to its end.
    pub fn run(self) -> Outcome {
        self.spawn().wait()
    }

    /// Starts it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(self) -> Running<'a> {
        let sandbox = self.sandbox;
        let number = sandbox.calls.fetch_add(1, Ordering::Relaxed);
        let [stdout, stderr] = ["out", "err"].map(|name| sandbox.aside(format!("{name}-{number}")));
        let words = self.under.iter().map(OsString::as_os_str);
        let words = words.chain([self.program.as_os_str()]);
        let mut words = words.chain(self.args.iter().map(OsString::as_os_str));
        let mut command = match &self.terminal {
            None => {
                let mut command = Command::new(words.next().unwrap_or_default());
                command.args(words);
                command
            }
            Some(_) => {
                let words: Vec<String> = words.map(|word| shell_quoted(&word.to_string_lossy())).collect();
                let mut command = Command::new("script");
                command.args(["-q", "-e", "-f", "-c", &words.join(" "), "/dev/null"]);
                command
            }
        };
        command.env_clear().env("PATH", &self.path).current_dir(&self.cwd);
        // Where the engine is, on a machine where it is not in the usual place.
        for name in ["DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        let (log_start, started) = (sandbox.log_length(), Instant::now());
        if self.into_log {
            let log = sandbox.path("logs/backup.log");
            command.stdout(append(&log)).stderr(append(&log));
        } else {
            command.stdout(append(&stdout)).stderr(append(&stderr));
        }
        command.stdin(if self.terminal.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        });
        // A group of its own, so that the test can end it with all that it has started.
        command.process_group(0);
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        if let (Some(mut stdin), Some(answer)) = (child.stdin.take(), &self.terminal) {
            let _ = stdin.write_all(answer.as_bytes());
        }
        Running {
            sandbox,
            child,
            stdout,
            stderr,
            log_start,
            started,
            deadline: started + self.limit,
            peak_kib: 0,
            ended: false,
        }
    }
}

/// A script that runs. It is killed, with what it started, when this is dropped.
pub struct Running<'a> {
    sandbox: &'a Sandbox,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    log_start: u64,
    started: Instant,
    deadline: Instant,
    peak_kib: u64,
    ended: bool,
}

impl Running<'_> {
    /// The process; the script becomes the binary, so it is the binary's.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, such as `KILL`, to this process alone.
    pub fn signal(&self, name: &str) {
        kill(name, &self.pid().to_string());
    }

    /// The log lines so far.
    pub fn log(&self) -> String {
        self.sandbox.log_from(self.log_start)
    }

    /// Waits until a line with `text` is in the log.
    ///
    /// # Panics
    /// When the script ends or the time is over before.
    pub fn await_log(&mut self, text: &str) {
        self.await_that(text, |running| running.log().contains(text));
    }

    /// Waits until `reached`, called `what` in the failure.
    ///
    /// # Panics
    /// When the script ends or the time is over before.
    pub fn await_that(&mut self, what: &str, reached: impl Fn(&Self) -> bool) {
        while !reached(self) {
            let ended = matches!(self.child.try_wait(), Ok(Some(_)));
            if ended && reached(self) {
                return;
            }
            assert!(
                !ended && Instant::now() < self.deadline,
                "{} before: {what}\n{}",
                if ended { "ended" } else { "no time left" },
                self.log()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When the time is over before.
    pub fn wait(mut self) -> Outcome {
        let status = loop {
            self.note_peak();
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < self.deadline => thread::sleep(Duration::from_millis(5)),
                Ok(None) => panic!("no time left for the script:\n{}", self.log()),
                Err(error) => panic!("cannot wait: {error}"),
            }
        };
        self.ended = true;
        let text = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        Outcome {
            code: status.code(),
            stdout: text(&self.stdout),
            stderr: text(&self.stderr),
            log: self.log(),
            took: self.started.elapsed(),
            peak_kib: self.peak_kib,
        }
    }

    /// Keeps the kernel's own record of the largest resident size so far.
    fn note_peak(&mut self) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        // Before the shim becomes the binary, the record is the shell's.
        if !status.starts_with("Name:\tn8n-backup\n") {
            return;
        }
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        if let Some(kib) = peak.and_then(|text| text.split_whitespace().next()?.parse().ok()) {
            self.peak_kib = self.peak_kib.max(kib);
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.ended {
            kill("KILL", &format!("-{}", self.pid()));
            let _ = self.child.wait();
        }
    }
}

/// How a script ended and what it said.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// What was added to `logs/backup.log` meanwhile.
    pub log: String,
    /// How long it took.
    pub took: Duration,
    /// The largest resident size of the binary that was seen, in KiB.
    pub peak_kib: u64,
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// `INFO`, `SUCCESS`, `WARN` or `ERROR`.
    pub level: String,
    /// The command that it is tagged with.
    pub command: String,
    /// The text after that.
    pub message: String,
}

impl Outcome {
    /// Fails unless the exit code is 0 and standard error is empty.
    #[track_caller]
    pub fn assert_success(&self) -> &Self {
        assert!(
            self.code == Some(0) && self.stderr.is_empty(),
            "success expected: {self}"
        );
        self
    }

    /// Fails unless the exit code is 1 and exactly one ERROR line says what went wrong, matching `pattern`, where `{}`
    /// stands for any text. Lines that tell the cause of another do not count.
    #[track_caller]
    pub fn assert_error(&self, pattern: &str) -> &Self {
        let errors = self.errors();
        assert!(
            self.code == Some(1) && errors.len() == 1 && matches(pattern, &errors[0]),
            "exit code 1 and the one error '{pattern}' expected, not {errors:?}: {self}"
        );
        self
    }

    /// The messages of level ERROR, without those that tell the cause of another.
    pub fn errors(&self) -> Vec<String> {
        self.lines()
            .into_iter()
            .filter(|line| line.level == "ERROR" && !line.message.starts_with("Cause: "))
            .map(|line| line.message)
            .collect()
    }

    /// The log lines.
    ///
    /// # Panics
    /// When a line has another form.
    #[track_caller]
    pub fn lines(&self) -> Vec<Line> {
        self.log.lines().map(parse_line).collect()
    }

    /// The messages of one command as `LEVEL message`.
    #[track_caller]
    pub fn messages(&self, command: &str) -> Vec<String> {
        self.lines()
            .into_iter()
            .filter(|line| line.command == command)
            .map(|line| format!("{} {}", line.level, line.message))
            .collect()
    }

    /// Fails unless each pattern (`LEVEL message`, where `{}` stands for any text) matches exactly one line of the
    /// command, in this order. Other lines may stand between. A pattern that is given twice must be there twice.
    #[track_caller]
    pub fn assert_messages(&self, command: &str, patterns: &[&str]) -> &Self {
        let said = self.messages(command);
        let mut next = 0;
        for pattern in patterns {
            match said.iter().skip(next).position(|message| matches(pattern, message)) {
                Some(at) => next += at + 1,
                None => panic!("[{command}] not in order or not there: {pattern}\n{self}"),
            }
            let wanted = patterns.iter().filter(|other| *other == pattern).count();
            let count = said.iter().filter(|message| matches(pattern, message)).count();
            assert_eq!(count, wanted, "[{command}] times: {pattern}\n{self}");
        }
        self
    }

    /// Fails unless the log has a line of this command and pattern (`LEVEL message`).
    #[track_caller]
    pub fn assert_log_has(&self, command: &str, pattern: &str) -> &Self {
        let there = self.messages(command).iter().any(|message| matches(pattern, message));
        assert!(there, "[{command}] missing: {pattern}\n{self}");
        self
    }

    /// Fails when `text` is anywhere in what was said.
    #[track_caller]
    pub fn assert_never_says(&self, text: &str) -> &Self {
        let all = [&self.stdout, &self.stderr, &self.log];
        assert!(!all.iter().any(|said| said.contains(text)), "'{text}' is said: {self}");
        self
    }

    /// Fails unless standard output and the log have the same lines.
    #[track_caller]
    pub fn assert_logged_as_printed(&self) -> &Self {
        assert_eq!(self.stdout, self.log, "standard output and log differ");
        self
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "exit code {:?} after {:?}", self.code, self.took)?;
        writeln!(f, "--- standard output\n{}", self.stdout)?;
        writeln!(f, "--- standard error\n{}", self.stderr)?;
        if self.log != self.stdout {
            writeln!(f, "--- log\n{}", self.log)?;
        }
        Ok(())
    }
}

#[track_caller]
fn parse_line(line: &str) -> Line {
    let parsed = || -> Option<Line> {
        let (level, rest) = line.strip_prefix('[')?.split_once("] ")?;
        let (time, rest) = rest.split_at_checked(19)?;
        let (command, message) = rest.strip_prefix(" [")?.split_once("] ")?;
        let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        let known = ["INFO", "SUCCESS", "WARN", "ERROR"].contains(&level)
            && shape == "0000-00-00 00:00:00"
            && line.chars().all(|c| c == ' ' || c.is_ascii_graphic());
        known.then(|| Line {
            level: level.to_owned(),
            command: command.to_owned(),
            message: message.to_owned(),
        })
    };
    parsed().unwrap_or_else(|| panic!("not a line of the log: {line:?}"))
}

/// Whether `text` is `pattern`, where each `{}` stands for one or more characters.
pub fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once("{}") {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            rest.char_indices()
                .skip(1)
                .map(|(at, _)| at)
                .chain((!rest.is_empty()).then_some(rest.len()))
                .any(|at| matches(after, &rest[at..]))
        }),
    }
}

/// A line of `.env` that gives `value` to `name`, whatever the value is.
pub fn env_line(name: &str, value: &str) -> String {
    let mut text = format!("{name}=\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '$' => text.push_str("$$"),
            _ => text.push(c),
        }
    }
    text.push('"');
    text
}

/// The permission bits of a file.
#[track_caller]
pub fn mode(path: &Path) -> u32 {
    match fs::symlink_metadata(path) {
        Ok(meta) => meta.mode() & 0o7777,
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

/// The name of a file, as text.
pub fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What a shell command prints; for the everyday tools (gunzip, tar, touch).
///
/// # Panics
/// When it fails.
#[track_caller]
pub fn sh(script: &str, args: &[&OsStr]) -> String {
    let mut command = Command::new("sh");
    command.args(["-euc", script, "sh"]).args(args);
    done(command)
}

/// Runs a command to its end, whatever it says.
///
/// # Panics
/// When it cannot be started.
#[track_caller]
pub fn output(mut command: Command) -> Output {
    command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Runs a command and gives its standard output.
///
/// # Panics
/// When it fails.
#[track_caller]
pub fn done(command: Command) -> String {
    let shown = format!("{command:?}");
    let said = output(command);
    assert!(
        said.status.success(),
        "{shown}: {}\n{}{}",
        said.status,
        String::from_utf8_lossy(&said.stdout),
        String::from_utf8_lossy(&said.stderr)
    );
    String::from_utf8_lossy(&said.stdout).into_owned()
}

/// Fails at the first line where two fingerprints differ, which is easier to read than the whole.
#[track_caller]
pub fn assert_same(before: &str, after: &str) {
    let mut lines = before.lines().zip(after.lines());
    if let Some((a, b)) = lines.find(|(a, b)| a != b) {
        panic!("differs:\n  before: {a}\n  after:  {b}");
    }
    assert_eq!(before.lines().count(), after.lines().count(), "number of lines");
}

/// Tells the summary of `make test` that a test did not run, and why. The test returns after it.
pub fn skip(test: &str, reason: &str) {
    eprintln!("{test} did not run: {reason}");
    if let Some(file) = std::env::var_os("N8N_BACKUP_SKIPPED") {
        // One line for each test; what another program said at length stands in the test's output.
        let first = reason.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let short: String = first.chars().take(200).collect();
        let _ = writeln!(append(Path::new(&file)), "{test}: {short}");
    }
}

/// Whether a test may mount over files in a mount namespace of its own.
pub fn can_mount() -> bool {
    let mut command = Command::new("unshare");
    command.args(["-m", "mount", "--bind", "/", "/"]);
    command.output().is_ok_and(|said| said.status.success())
}

/// A backup file as it was before it was encrypted: itself, or a copy beside the project, by gpg alone and the passphrase
/// of `TEST_PASSPHRASE`.
pub fn plain(sandbox: &Sandbox, path: &Path) -> PathBuf {
    let file = name(path);
    let Some(inner) = file.strip_suffix(".gpg") else {
        return path.to_owned();
    };
    let copy = sandbox.aside(format!("plain-{inner}"));
    let _ = fs::remove_file(&copy);
    let mut gpg = Command::new("gpg");
    gpg.args([
        "--batch",
        "--quiet",
        "--homedir",
        "/nonexistent",
        "--no-keyring",
        "--no-autostart",
    ])
    .args(["--pinentry-mode", "loopback", "--passphrase-fd", "0", "--output"])
    .arg(&copy)
    .arg("--decrypt")
    .arg(path)
    .stdin(Stdio::piped())
    .stderr(Stdio::piped());
    let mut child = gpg.spawn().unwrap_or_else(|error| panic!("gpg: {error}"));
    let passphrase = std::env::var_os("TEST_PASSPHRASE").unwrap_or_default();
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(passphrase.as_encoded_bytes());
    }
    let said = child.wait_with_output().unwrap_or_else(|error| panic!("gpg: {error}"));
    assert!(
        said.status.success(),
        "{}: {}",
        path.display(),
        String::from_utf8_lossy(&said.stderr)
    );
    copy
}

/// The program under test: the one that `N8N_BACKUP_TEST_PROGRAM` names, as the make targets do with what a user installs,
/// else cargo's.
pub fn program() -> PathBuf {
    std::env::var_os("N8N_BACKUP_TEST_PROGRAM").map_or_else(|| env!("CARGO_BIN_EXE_n8n-backup").into(), PathBuf::from)
}

/// Whether a program is on the PATH.
pub fn has_program(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// Makes sure, once, that there is a Docker engine.
fn engine() {
    static ANSWER: OnceLock<Result<(), String>> = OnceLock::new();
    let answer = ANSWER.get_or_init(|| {
        let mut command = Command::new("docker");
        command
            .args(["version", "--format", "{{.Server.Version}}"])
            .stdin(Stdio::null());
        match command.output() {
            Ok(said) if said.status.success() => {
                let mut images = Command::new(repository().join("tests/stack/stack.sh"));
                images.arg("images");
                done(images);
                Ok(())
            }
            Ok(said) => Err(String::from_utf8_lossy(&said.stderr).into_owned()),
            Err(error) => Err(error.to_string()),
        }
    });
    if let Err(reason) = answer {
        panic!("these tests need a Docker engine (make test starts one where it can): {reason}");
    }
}

/// The checkout that is tested.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
fn fingerprint(command: Command) -> String {
    let text = done(command);
    assert!(!text.trim().is_empty(), "an empty fingerprint proves nothing");
    text
}

fn append(path: &Path) -> File {
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn kill(signal: &str, target: &str) {
    let _ = Command::new("kill")
        .args([&format!("-{signal}"), "--", target])
        .output();
}

fn starts_with_dot(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn list(top: &Path, dir: &Path, found: &mut Vec<String>) {
    for item in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = item.path();
        let Ok(meta) = item.metadata() else { continue };
        let relative = path.strip_prefix(top).unwrap_or(&path);
        if relative == Path::new("logs") || item.file_name() == ".lock" {
            continue;
        }
        let digest = if meta.is_file() {
            use std::hash::{DefaultHasher, Hash, Hasher};
            let mut hasher = DefaultHasher::new();
            fs::read(&path).unwrap_or_default().hash(&mut hasher);
            hasher.finish()
        } else {
            0
        };
        found.push(format!(
            "{relative:?} {:o} {} {digest:x}",
            meta.mode(),
            meta.len() * u64::from(meta.is_file())
        ));
        if meta.is_dir() {
            list(top, &path, found);
        }
    }
}
