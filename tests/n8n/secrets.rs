//! While a drill runs, no key and nothing that was decrypted shows anywhere but where it is to be.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::common::point::encrypt;
use crate::common::{await_true, sh, Sandbox};
use crate::stack;

/// Larger files are no place for a key.
const MOST: u64 = 4 << 20;

/// Looks for secrets in what this host shows.
struct Watch<'a> {
    sandbox: &'a Sandbox,
    secrets: Vec<String>,
    /// The engine's records of containers and what these have printed.
    containers: PathBuf,
    since: SystemTime,
}

/// Where a secret was seen, by the kind of place.
type Seen = BTreeMap<&'static str, String>;

impl<'a> Watch<'a> {
    fn new(sandbox: &'a Sandbox, secrets: &[&str]) -> Self {
        let root = sandbox.docker(&["info", "--format", "{{.DockerRootDir}}"]);
        Self {
            sandbox,
            secrets: secrets.iter().map(|secret| (*secret).to_owned()).collect(),
            containers: Path::new(root.trim()).join("containers"),
            since: SystemTime::now() - Duration::from_secs(2),
        }
    }

    fn shows(&self, bytes: &[u8]) -> bool {
        let text = String::from_utf8_lossy(bytes);
        self.secrets.iter().any(|secret| text.contains(secret.as_str()))
    }

    fn look(&self, seen: &mut Seen) {
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            if self.shows(&line) {
                seen.insert("process list", String::from_utf8_lossy(&line).into_owned());
            }
        }
        for container in fs::read_dir(&self.containers).unwrap().flatten() {
            self.files(&container.path(), 1, seen, &|path| match path.extension() {
                Some(extension) if extension == "log" => "docker logs",
                _ => "container configuration",
            });
        }
        self.files(Path::new("/dev/shm"), 3, seen, &|_| "/dev/shm");
        self.files(Path::new("/tmp"), 1, seen, &|_| "/tmp");
        let logs = self.sandbox.path("logs");
        self.files(self.sandbox.dir(), 5, seen, &|path| {
            if path.starts_with(&logs) {
                "log"
            } else {
                "project directory"
            }
        });
    }

    /// What was written since in a directory, and so many levels below it.
    fn files(&self, dir: &Path, levels: u32, seen: &mut Seen, kind: &dyn Fn(&Path) -> &'static str) {
        for item in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = item.path();
            let Ok(about) = item.metadata() else { continue };
            if about.is_dir() && levels > 0 {
                self.files(&path, levels - 1, seen, kind);
            }
            let is_new = about.modified().is_ok_and(|time| time >= self.since);
            if about.is_file() && is_new && about.len() < MOST && self.shows(&fs::read(&path).unwrap_or_default()) {
                seen.insert(kind(&path), path.display().to_string());
            }
        }
    }

    /// Looks again and again while `work` goes on.
    fn during<T>(&self, work: impl FnOnce() -> T) -> (T, Seen, u32) {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let (mut seen, mut rounds) = (Seen::new(), 0);
                while !stop.load(Ordering::Relaxed) {
                    self.look(&mut seen);
                    rounds += 1;
                    thread::sleep(Duration::from_millis(50));
                }
                (seen, rounds)
            });
            let done = work();
            stop.store(true, Ordering::Relaxed);
            let (seen, rounds) = watch.join().unwrap();
            (done, seen, rounds)
        })
    }
}

/// Puts a secret into each place, so that it is certain that the watch would see one.
fn find_planted(sandbox: &Sandbox) {
    let planted = format!("planted-{}", std::process::id());
    let watch = Watch::new(sandbox, &[&planted]);
    let names = ["a", "b"].map(|end| format!("{}-plant-{end}", sandbox.prefix()));
    let files = [
        PathBuf::from(format!("/tmp/{}-planted", sandbox.prefix())),
        PathBuf::from(format!("/dev/shm/{}-planted", sandbox.prefix())),
        sandbox.path("backups/planted"),
        sandbox.path("logs/planted.log"),
    ];
    let ((), seen, _) = watch.during(|| {
        for file in &files {
            fs::write(file, &planted).unwrap();
        }
        let mut decoy = Command::new("sleep")
            .arg("60")
            .arg0(format!("sleep {planted}"))
            .spawn()
            .unwrap();
        let start = |name: &str, options: &[&str], command: &[&str]| {
            let mut run = vec!["run", "--detach", "--network", "none", "--name", name];
            let labels = sandbox.labels();
            run.extend(labels.iter().map(String::as_str));
            run.extend(options);
            run.push("n8n-backup-test/busybox:1");
            run.extend(command);
            sandbox.docker(&run);
        };
        start(&names[0], &["-e", &format!("X={planted}")], &["sleep", "60"]);
        // Only what it prints shows it.
        let (first, rest) = planted.split_at(4);
        start(&names[1], &[], &["sh", "-c", "echo \"$0$1\"; sleep 60", first, rest]);
        thread::sleep(Duration::from_secs(3));
        decoy.kill().unwrap();
        decoy.wait().unwrap();
    });
    for name in &names {
        sandbox.docker(&["rm", "-fv", name]);
    }
    files.iter().for_each(|file| fs::remove_file(file).unwrap());
    let places: Vec<&str> = seen.keys().copied().collect();
    assert_eq!(
        places,
        [
            "/dev/shm",
            "/tmp",
            "container configuration",
            "docker logs",
            "log",
            "process list",
            "project directory"
        ]
    );
}

#[test]
fn nothing_shows_a_secret_while_a_drill_runs() {
    let sandbox = stack::created("nshown");
    find_planted(&sandbox);

    // A key and contents that no other test has. The key is in n8n's home alone, so that it lies open nowhere: the archive of the
    // home is packed.
    let unique = format!("{:08x}{}", std::process::id(), "c0ffee5ec2e7");
    let (key, content) = (format!("key-{unique}"), format!("password-{unique}"));
    let sealed = encrypt(&key, &format!("{{\"user\":\"x\",\"password\":\"{content}\"}}"));
    sandbox.psql(&format!(
        "UPDATE credentials_entity SET data = '{sealed}'; DELETE FROM deployment_key WHERE type <> 'instance.id'"
    ));
    sh(
        "printf '{\"encryptionKey\": \"%s\"}' \"$2\" | \
         docker run --rm -i --network none -v \"$1:/v\" n8n-backup-test/busybox:1 sh -c 'cat >/v/config'",
        &[sandbox.volume().as_ref(), key.as_ref()],
    );
    let watch = Watch::new(&sandbox, &[&key, &content]);
    let (outcomes, seen, rounds) = watch.during(|| {
        let backup = sandbox.run("backup-all", &[]);
        let limit = Duration::from_secs(900);
        let drill = sandbox.call("test-recovery").arg("--full").limit(limit).run();
        [backup, drill]
    });
    for outcome in &outcomes {
        outcome.assert_success();
        outcome.assert_never_says(&key);
        outcome.assert_never_says(&content);
    }
    let drill = &outcomes[1].stdout;
    assert!(drill.contains("n8n 2.40.7 opened 4 of 4 credentials"), "{drill}");
    assert!(drill.contains("n8n 2.40.7 started from the backup"), "{drill}");
    assert!(rounds > 20, "{rounds}");
    assert_eq!(seen, Seen::new());
    await_true("containers stay", || stack::scratch(&sandbox).is_empty());
}
