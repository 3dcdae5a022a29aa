//! What a sandbox is to have.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::UNIX_EPOCH;

use super::stack::engine;
use super::{done, env_line, Sandbox};

/// What a sandbox is to have; nothing but the directory unless asked for.
pub struct Builder {
    name: &'static str,
    postgres: bool,
    redis: bool,
    n8n: bool,
    volume: bool,
    containers: bool,
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

    /// A place for containers that the test makes: they go with the sandbox.
    pub fn containers(mut self) -> Self {
        self.containers = true;
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
            containers: self.postgres || self.redis || self.n8n || self.volume || self.containers,
            postgres_user: self.postgres_user.clone(),
            postgres_db: self.postgres_db.clone(),
            postgres_password: self.postgres_password.clone(),
            redis_password: self.redis_password.clone(),
            calls: AtomicU32::new(0),
            created: UNIX_EPOCH.elapsed().unwrap_or_default().as_secs(),
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
        } else if self.volume || self.n8n {
            if !self.n8n {
                sandbox.make_volume(&sandbox.volume());
            }
            // n8n has started once.
            sandbox.in_volume(&sandbox.volume(), "echo {} >config");
        }
    }
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
            containers: false,
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
}
