//! The scratch containers of a drill.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::{assert_says, LABEL};
use crate::common::Sandbox;

#[test]
fn a_test_that_is_killed_leaves_nothing_running() {
    let sandbox = Sandbox::new("dkill").postgres().build();
    // What holds nothing proves nothing.
    let outcome = sandbox.run("backup-postgres", &[]);
    outcome.assert_success();
    outcome.assert_log_has(
        "backup-postgres",
        "WARN Database n8n holds no table: set POSTGRES_DB in .env {}",
    );
    let outcome = sandbox.run("test-recovery", &["--postgres"]);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    assert!(outcome.stdout.contains("the dump holds no table"), "{outcome}");
    sandbox.psql("CREATE TABLE workflow_entity AS SELECT 1 AS id");
    sandbox.run("backup-postgres", &[]).assert_success();
    // It stands still in the middle of the load.
    let reached = sandbox.aside("reached");
    let shown = reached.display();
    let watch = sandbox.stand_in_docker(&format!(
        "case \"$*\" in *psql*n8n_backup_drill*) : >'{shown}'; sleep 60 ;; esac"
    ));
    let mut running = sandbox
        .call("test-recovery")
        .args(&["--postgres"])
        .path_first(&watch)
        .spawn();
    let containers = || {
        let format = "{{.ID}} {{.Label \"n8n-backup.drill\"}} {{.Status}}";
        let image = sandbox.docker(&["inspect", "--format", "{{.Image}}", &sandbox.container("postgres")]);
        sandbox.docker(&[
            "ps",
            "-a",
            "--no-trunc",
            "--filter",
            &format!("label={LABEL}={}", sandbox.owner()),
            "--filter",
            &format!("ancestor={}", image.trim()),
            "--format",
            format,
        ])
    };
    running.await_that("the load", |_| reached.exists());
    assert!(containers().contains(" Up "), "{}", containers());
    let volumes = |id: &str| sandbox.docker(&["inspect", "--format", "{{range .Mounts}}{{.Name}} {{end}}", id]);
    let id = containers().split_whitespace().next().unwrap().to_owned();
    let volumes = volumes(&id);
    running.signal("KILL");
    drop(running);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !containers().is_empty() {
        assert!(Instant::now() < deadline, "still there: {}", containers());
        thread::sleep(Duration::from_millis(100));
    }
    // The engine removes a container's volumes after the container is gone from its list.
    for volume in volumes.split_whitespace() {
        let there = || sandbox.docker(&["volume", "ls", "-q", "--filter", &format!("name={volume}")]);
        while !there().is_empty() {
            assert!(Instant::now() < deadline, "still there: {}", there());
            thread::sleep(Duration::from_millis(100));
        }
    }
    // One that never ran is swept by the next test.
    let image = sandbox.docker(&["inspect", "--format", "{{.Image}}", &sandbox.container("postgres")]);
    let label = format!("{LABEL}={}", sandbox.owner());
    sandbox.docker(&["create", "--label", &label, image.trim(), "true"]);
    let outcome = sandbox.run("test-recovery", &["--postgres"]);
    outcome.assert_success();
    assert_says(
        &outcome,
        "WARN Removed 1 scratch container(s) that an interrupted test left",
    );
    assert_eq!(containers(), "");
}

/// An image that goes when the test ends.
struct Image(String);

impl Drop for Image {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "-f", &self.0]).output();
    }
}

/// Makes an image of `base` by a script that is run in it, and the changes of `docker commit`.
fn variant(sandbox: &Sandbox, base: &str, name: &str, script: &str, changes: &[&str]) -> Image {
    let image = Image(format!("{}-{name}:1", sandbox.prefix().to_lowercase()));
    let source = format!("{}-{name}-source", sandbox.prefix());
    let mut run = vec![
        "run",
        "--network",
        "none",
        "--user",
        "0",
        "--entrypoint",
        "/bin/sh",
        "--name",
        &source,
    ];
    let labels = sandbox.labels();
    run.extend(labels.iter().map(String::as_str));
    run.extend([base, "-ec", script]);
    sandbox.docker(&run);
    let mut commit = vec!["commit"];
    changes.iter().for_each(|change| commit.extend(["-c", change]));
    commit.extend([source.as_str(), image.0.as_str()]);
    sandbox.docker(&commit);
    sandbox.docker(&["rm", "-v", &source]);
    image
}

/// Makes a container of an image that never runs, and has a setting name it: an image is asked for, and no more.
fn use_image(sandbox: &Sandbox, setting: &str, name: &str, image: &str) {
    let live = format!("{}-{name}-live", sandbox.prefix());
    let mut create = vec!["create".to_owned(), "--name".to_owned(), live.clone()];
    create.extend(sandbox.labels());
    create.extend([image.to_owned(), "true".to_owned()]);
    sandbox.docker(&create);
    sandbox.set(setting, &live);
}

/// Whatever the layout of the image, and whatever its entry point does.
#[test]
fn a_cluster_of_our_own_is_made_in_every_layout() {
    let sandbox = Sandbox::new("dlayouts")
        .postgres()
        .postgres_user("odd user")
        .pg_arg("-c")
        .pg_arg("shared_preload_libraries=pg_stat_statements")
        .build();
    // What can be loaded only where the library is preloaded.
    sandbox.psql(
        "CREATE TABLE workflow_entity AS SELECT generate_series(1, 30) AS id; CREATE EXTENSION pg_stat_statements; \
         CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM pg_stat_statements",
    );
    sandbox.run("backup-postgres", &[]).assert_success();
    let set = fs::read_to_string(sandbox.backup("sets")).unwrap();
    assert!(set.contains("# postgres.preload: pg_stat_statements\n"), "{set}");
    assert!(set.contains("# postgres.locale: UTF8 c C.UTF-8 C.UTF-8\n"), "{set}");

    let base = sandbox.docker(&["inspect", "--format", "{{.Image}}", &sandbox.container("postgres")]);
    let base = base.trim();
    const BIN: &str = "bin=$(dirname \"$(readlink -f \"$(command -v postgres)\")\")\n";
    const NO_ENTRY: &str = "ENTRYPOINT [\"false\"]";
    const PLAIN: &str = "ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin";
    let layouts = [
        (
            "official",
            "".to_owned(),
            vec![
                "ENV PGDATA=/var/lib/postgresql/18/docker",
                "VOLUME /var/lib/postgresql",
                NO_ENTRY,
            ],
        ),
        ("own-user", "".to_owned(), vec!["USER postgres", NO_ENTRY]),
        (
            "bitnami",
            // No account for the user, and nothing in PATH.
            format!(
                "{BIN}mkdir -p /opt/bitnami/postgresql; mv \"$bin/../lib\" \"$bin\" /opt/bitnami/postgresql; \
                 sed -i /^postgres:/d /etc/passwd /etc/group"
            ),
            vec!["USER 1001", PLAIN, "ENV PGPORT=6000", "ENV LANG=en_US.UTF-8", NO_ENTRY],
        ),
        (
            "supabase",
            // Links into a store, and another program to change the user.
            format!(
                "{BIN}mkdir -p /store /usr/lib/postgresql/bin; mv \"$bin/../lib\" \"$bin\" /store; \
                 ln -s /store/bin/* /usr/lib/postgresql/bin; mkdir /hidden; mv \"$(command -v setpriv)\" /hidden; \
                 printf '#!/bin/sh\\nids=$1; shift\\nexec /hidden/setpriv --reuid=${{ids%%:*}} --regid=${{ids#*:}} --clear-groups \"$@\"\\n' \
                 >/usr/bin/gosu; chmod 755 /usr/bin/gosu"
            ),
            vec![PLAIN, NO_ENTRY],
        ),
    ];
    let mut images = Vec::new();
    for (name, script, changes) in layouts {
        let image = variant(&sandbox, base, name, &script, &changes);
        use_image(&sandbox, "BACKUP_POSTGRES_CONTAINER", name, &image.0);
        images.push(image);
        let outcome = sandbox.run("test-recovery", &["--postgres"]);
        assert!(outcome.code == Some(0), "{name}: {outcome}");
        assert_says(
            &outcome,
            "SUCCESS PostgreSQL: 1 tables, 30 rows, 0 sequences recovered in {}",
        );
        assert!(!outcome.stdout.contains("WARN"), "{name}: {outcome}");
    }

    // What an image cannot do is said in a line that names it, at once.
    for (name, script, code, reason) in [
        (
            "lacking",
            "rm \"$(find / -xdev -name pg_stat_statements.so)\"",
            1,
            "runs without pg_stat_statements, which the live server preloads",
        ),
        (
            "broken",
            "for file in $(find / -xdev -name pg_stat_statements.so); do echo >\"$file\"; done",
            1,
            "does not start with pg_stat_statements, as the live server does",
        ),
        (
            "empty",
            "rm \"$(readlink -f \"$(command -v initdb)\")\"",
            2,
            "the image has no initdb and postgres",
        ),
    ] {
        let image = variant(&sandbox, base, name, script, &[NO_ENTRY]);
        use_image(&sandbox, "BACKUP_POSTGRES_CONTAINER", name, &image.0);
        let begun = Instant::now();
        let outcome = sandbox.run("test-recovery", &["--postgres"]);
        assert_eq!(outcome.code, Some(code), "{name}: {outcome}");
        let id = sandbox.docker(&["image", "inspect", "--format", "{{.Id}}", &image.0]);
        let is_told = |line: &&str| line.contains(reason) && line.contains(id.trim());
        assert_eq!(outcome.stdout.lines().filter(is_told).count(), 1, "{name}: {outcome}");
        assert!(begun.elapsed() < Duration::from_secs(60), "{name}: {outcome}");
        images.push(image);
    }
    // The images go only after what was made from them.
    drop(sandbox);
    drop(images);
}

/// The scratch container of the volume holds n8n's key.
#[test]
fn a_killed_test_of_the_volume_leaves_no_key_behind() {
    let sandbox = Sandbox::new("vkill").n8n().seeded().build();
    sandbox.run("backup-n8n", &[]).assert_success();
    let label = format!("label={LABEL}={}", sandbox.owner());
    let left = || sandbox.docker(&["ps", "-aq", "--no-trunc", "--filter", &label]);
    let volume_of = |id: &str| sandbox.docker(&["inspect", "--format", "{{range .Mounts}}{{.Name}}{{end}}", id]);
    let is_there = |volume: &str| sandbox.docker(&["volume", "ls", "-q"]).contains(volume.trim());
    // Made, and not started yet.
    let killer = |pattern: &str| {
        sandbox.stand_in_docker(&format!(
            "case \" $* \" in {pattern}) kill -KILL $PPID; sleep 1; exit 1 ;; esac"
        ))
    };
    let docker = killer("*' start --attach '*");
    let outcome = sandbox.call("test-recovery").arg("--n8n").path_first(&docker).run();
    assert_ne!(outcome.code, Some(0), "{outcome}");
    let id = left();
    assert_eq!(id.lines().count(), 1, "{outcome}");
    let volume = volume_of(id.trim());
    assert!(is_there(&volume));
    // Any command that asks the engine removes it.
    let outcome = sandbox.run("backup-n8n", &[]);
    outcome.assert_success();
    outcome.assert_log_has(
        "test-recovery",
        "WARN Removed 1 scratch container(s) that an interrupted test left",
    );
    assert!(left().is_empty() && !is_there(&volume));

    // It ends by itself, with its volume, while it holds the key.
    let reached = sandbox.aside("reached");
    let docker = sandbox.stand_in_docker(&format!(
        "case \" $* \" in *' sh all '*) : >'{}'; sleep 60 ;; esac",
        reached.display()
    ));
    let mut running = sandbox.call("test-recovery").arg("--n8n").path_first(&docker).spawn();
    running.await_that("the archive to be unpacked", |_| reached.exists());
    let id = left();
    let volume = volume_of(id.trim());
    assert!(is_there(&volume));
    running.signal("KILL");
    running.wait();
    crate::common::await_true("the container is left", || left().is_empty() && !is_there(&volume));
    drop(sandbox);
}

/// Whatever the entry point is: the server itself, a line of shell, or a script that takes no arguments; and Valkey, under its own
/// names.
#[test]
fn a_snapshot_is_loaded_whatever_the_entry_point_does() {
    let sandbox = Sandbox::new("dentry").stack().seeded().build();
    sandbox.run("backup-all", &[]).assert_success();
    let base = sandbox.docker(&["inspect", "--format", "{{.Image}}", &sandbox.container("redis")]);
    let base = base.trim();
    let conf =
        "printf 'requirepass \"a secret\"\\ndaemonize yes\\nsave 60 1\\n' >/etc/own.conf; chmod 644 /etc/own.conf";
    let valkey = "cd /usr/local/bin; mkdir /hidden; \
        for name in server cli check-rdb; do cp \"$(command -v redis-$name)\" /hidden/redis-$name; \
        rm \"$(command -v redis-$name)\"; printf '#!/bin/sh\\nexec /hidden/redis-%s \"$@\"\\n' $name >valkey-$name; \
        chmod 755 valkey-$name; done";
    let mut images = Vec::new();
    for (name, script, entry) in [
        ("server", "", r#"["redis-server"]"#),
        ("conf", conf, r#"["/usr/bin/env", "redis-server", "/etc/own.conf"]"#),
        ("line", "", r#"["/bin/sh", "-c", "exec redis-server --port 7000"]"#),
        ("none", "", r#"["false"]"#),
        ("valkey", valkey, r#"["valkey-server"]"#),
    ] {
        let changes = [
            format!("ENTRYPOINT {entry}"),
            "CMD []".to_owned(),
            "USER 999".to_owned(),
        ];
        let changes: Vec<&str> = changes.iter().map(String::as_str).collect();
        let image = variant(&sandbox, base, name, script, &changes);
        use_image(&sandbox, "BACKUP_REDIS_CONTAINER", name, &image.0);
        images.push(image);
        let outcome = sandbox.run("test-recovery", &["--full"]);
        assert_says(&outcome, "SUCCESS Redis: {} keys recovered in {}");
        let set = fs::read_to_string(sandbox.backup("sets")).unwrap();
        assert!(set.contains("# drill: passed full"), "{name}: {outcome}");
    }
    // One without any server has not tested anything.
    let image = variant(&sandbox, base, "empty", "rm \"$(command -v redis-server)\"", &[]);
    use_image(&sandbox, "BACKUP_REDIS_CONTAINER", "empty", &image.0);
    let outcome = sandbox.run("test-recovery", &["--full"]);
    assert_eq!(outcome.code, Some(2), "{outcome}");
    assert!(
        outcome
            .stdout
            .contains("the image has no redis-server or valkey-server"),
        "{outcome}"
    );
    drop(sandbox);
    drop(images);
    drop(image);
}
