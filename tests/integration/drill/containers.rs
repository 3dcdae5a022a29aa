//! The scratch containers of a drill.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::{assert_says, LABEL};
use crate::common::{sh, Sandbox};

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
            &format!("label={LABEL}={}", owner_of(sandbox.dir())),
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
    let label = format!("{LABEL}={}", owner_of(sandbox.dir()));
    sandbox.docker(&["create", "--label", &label, image.trim(), "true"]);
    let outcome = sandbox.run("test-recovery", &["--postgres"]);
    outcome.assert_success();
    assert_says(
        &outcome,
        "WARN Removed 1 scratch container(s) that an interrupted test left",
    );
    assert_eq!(containers(), "");
}

/// The value of the label: FNV-1a of host name and project directory.
fn owner_of(project: &Path) -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let project = project.canonicalize().unwrap();
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

/// An image that goes when the test ends.
struct Image(String);

impl Drop for Image {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "-f", &self.0]).output();
    }
}

#[test]
fn a_server_that_makes_its_cluster_first_is_waited_for() {
    let sandbox = Sandbox::new("dinit").postgres().postgres_user("odd user").build();
    sandbox.psql("CREATE TABLE things AS SELECT generate_series(1, 30) AS id");
    sandbox.run("backup-postgres", &[]).assert_success();

    // As the official image does it: a first server, for the set-up, on the socket only, which is ended again.
    let entry = sandbox.write(
        "entry.sh",
        r#"#!/bin/sh
set -e
[ "$1" = postgres ] && [ "$POSTGRES_HOST_AUTH_METHOD" = trust ] && [ "$POSTGRES_DB" = postgres ]
if [ "$(id -u)" = 0 ]; then
  mkdir -p "$PGDATA" /run/postgresql
  chown postgres "$PGDATA" /run/postgresql
  exec setpriv --reuid=postgres --regid=postgres --clear-groups "$0" "$@"
fi
initdb -D "$PGDATA" -U "$POSTGRES_USER" --no-sync
echo 'host all all all trust' >>"$PGDATA/pg_hba.conf"
shift
pg_ctl -D "$PGDATA" -o "$* -c listen_addresses=''" -w start
sleep 2
pg_ctl -D "$PGDATA" -m fast -w stop
exec postgres "$@"
"#,
    );
    sh("chmod 755 \"$1\"", &[entry.as_os_str()]);
    let base = sandbox.docker(&["inspect", "--format", "{{.Image}}", &sandbox.container("postgres")]);
    let source = format!("{}-source", sandbox.prefix());
    let mut create = vec!["create".to_owned(), "--name".to_owned(), source.clone()];
    create.extend(sandbox.labels());
    create.push(base.trim().to_owned());
    sandbox.docker(&create);
    let target = format!("{source}:/usr/local/bin/entry");
    sandbox.docker(&["cp".as_ref(), entry.as_os_str(), target.as_ref()]);
    let image = Image(format!("{}-official:1", sandbox.prefix().to_lowercase()));
    sandbox.docker(&[
        "commit",
        "-c",
        r#"ENTRYPOINT ["/usr/local/bin/entry"]"#,
        &source,
        &image.0,
    ]);

    // The stack's container need not run: its image is asked for, and no more.
    let live = format!("{}-official", sandbox.prefix());
    let mut create = vec!["create".to_owned(), "--name".to_owned(), live.clone()];
    create.extend(sandbox.labels());
    create.push(image.0.clone());
    sandbox.docker(&create);
    sandbox.set("BACKUP_POSTGRES_CONTAINER", &live);
    let outcome = sandbox.run("test-recovery", &["--postgres"]);
    outcome.assert_success();
    assert_says(
        &outcome,
        "SUCCESS PostgreSQL: 1 tables, 30 rows, 0 sequences recovered in {}",
    );
    // The image goes only after what was made from it.
    drop(sandbox);
}

/// The scratch container of the volume holds n8n's key.
#[test]
fn a_killed_test_of_the_volume_leaves_no_key_behind() {
    let sandbox = Sandbox::new("vkill").n8n().seeded().build();
    sandbox.run("backup-n8n", &[]).assert_success();
    let label = format!("label={LABEL}={}", owner_of(sandbox.dir()));
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
}
