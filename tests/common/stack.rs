//! The containers, volumes and contents of a sandbox's stack.

use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use super::{await_true, done, output, repository, Sandbox};

/// The port that the test stack's Redis listens on in its container.
pub const REDIS_PORT: &str = "6386";
/// The label that marks what belongs to a stack.
const LABEL: &str = "n8n-backup.test";

impl Sandbox {
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

    /// Runs a shell script in a volume, and gives what it prints.
    #[track_caller]
    pub fn in_volume(&self, volume: &str, script: &str) -> String {
        let mount = format!("{volume}:/volume");
        let labels = self.labels();
        let mut args = vec!["run", "--rm", "--network", "none", "-v", &mount, "-w", "/volume"];
        args.extend(labels.iter().map(String::as_str));
        args.extend(["n8n-backup-test/busybox:1", "sh", "-ec", script]);
        self.docker(&args)
    }

    /// Options for `docker create` and the like, so that what is made goes with the sandbox. The same each time: Compose
    /// makes a container again whose labels have changed.
    pub fn labels(&self) -> [String; 4] {
        let label = "--label".to_owned();
        [
            label.clone(),
            format!("{LABEL}={}", self.prefix),
            label,
            format!("{LABEL}.created={}", self.created),
        ]
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
        done(self.redis_cli(args)).trim_end().to_owned()
    }

    /// Waits until the sandbox's Redis answers.
    #[track_caller]
    pub fn await_redis(&self) {
        await_true("Redis does not answer", || {
            output(self.redis_cli(&["ping"])).stdout == b"PONG\n"
        });
    }

    fn redis_cli(&self, args: &[&str]) -> Command {
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
        command
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
    pub fn stack(&self, args: &[&str]) -> Command {
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

/// Makes sure, once, that there is a Docker engine.
pub(super) fn engine() {
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

#[track_caller]
fn fingerprint(command: Command) -> String {
    let text = done(command);
    assert!(!text.trim().is_empty(), "an empty fingerprint proves nothing");
    text
}
