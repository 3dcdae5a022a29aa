//! An n8n project directory of its own, with the installed scripts.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{symlink, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::tools::{script, shell_quoted};
use super::{done, env_line, program, repository, Call, Outcome, Running, REDIS_PORT};

/// An n8n project directory and its stack.
pub struct Sandbox {
    pub(super) root: PathBuf,
    pub(super) dir: PathBuf,
    pub(super) prefix: String,
    pub(super) containers: bool,
    pub(super) postgres_user: String,
    pub(super) postgres_db: String,
    pub(super) postgres_password: String,
    pub(super) redis_password: String,
    pub(super) calls: AtomicU32,
    /// In seconds since 1970.
    pub(super) created: u64,
}

impl Sandbox {
    /// The n8n project directory. Its name has a blank.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The value of the labels of what a drill makes: FNV-1a of host name and project directory.
    pub fn owner(&self) -> String {
        let read = || -> std::io::Result<(String, PathBuf)> {
            Ok((
                fs::read_to_string("/proc/sys/kernel/hostname")?,
                self.dir.canonicalize()?,
            ))
        };
        let (host, project) = read().unwrap_or_else(|error| panic!("{error}"));
        let bytes = host
            .trim()
            .bytes()
            .chain([0])
            .chain(project.as_os_str().as_encoded_bytes().iter().copied());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("{hash:016x}")
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

    /// A stand-in for docker whose call number `nth` that matches the shell pattern `pattern` (with spaces around the arguments)
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
    pub fn stand_in(&self, name: &str, text: &str) -> PathBuf {
        let dir = self.aside(format!("stand-in-{}", self.calls.fetch_add(1, Ordering::Relaxed)));
        let file = dir.join(name);
        fs::create_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        script(&file, text);
        dir
    }

    /// Something for a stand-in to wait for, so that a run stands still at a point of its work until the test goes on.
    pub fn gate(&self) -> Gate {
        Gate(self.aside(format!("gate-{}", self.calls.fetch_add(1, Ordering::Relaxed))))
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
        Call::new(self, self.path(format!("scripts/{name}.sh")))
    }

    /// Begins a call of the installed binary itself.
    pub fn binary(&self) -> Call<'_> {
        Call::new(self, self.path("bin/n8n-backup"))
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

    pub(super) fn log_from(&self, offset: u64) -> String {
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

    pub(super) fn log_length(&self) -> u64 {
        fs::metadata(self.path("logs/backup.log")).map_or(0, |meta| meta.len())
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

    pub(super) fn env_file_text(&self) -> String {
        let mut text = String::from("# Settings of a scratch stack\n");
        for (name, value) in self.settings() {
            let _ = writeln!(text, "{}", env_line(name, &value));
        }
        text
    }

    /// Lays the scripts and the binary under test into the project directory, with the script that `make install` runs
    /// and a copy of the checkout that has this binary in its `bin`.
    pub(super) fn install(&self) {
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

/// Closed until it is opened.
pub struct Gate(PathBuf);

impl Gate {
    /// A shell command that ends once the gate is open, or gone with its sandbox.
    pub fn wait(&self) -> String {
        let [file, reached] = [&self.0, &self.reached()].map(|path| shell_quoted(&path.to_string_lossy()));
        format!(": >{reached}; while [ ! -e {file} ] && [ -e {reached} ]; do sleep 0.02; done")
    }

    /// Whether something waits.
    pub fn is_reached(&self) -> bool {
        self.reached().exists()
    }

    fn reached(&self) -> PathBuf {
        self.0.with_extension("reached")
    }

    /// Opens it.
    pub fn open(&self) {
        fs::write(&self.0, "").unwrap_or_else(|error| panic!("{}: {error}", self.0.display()));
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

fn starts_with_dot(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
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
