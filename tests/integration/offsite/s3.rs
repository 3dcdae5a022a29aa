//! Copies by a real S3 API: a bucket with versions and object lock, and a key that may neither make buckets nor delete.

use std::fs;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::stacks::{plain, point, POINTS};
use super::{configure, lacks_programs, send};
use crate::common::servers::free_port;
use crate::common::{done, repository, Sandbox};

/// A server of S3, which ends when this is dropped.
struct S3 {
    child: Child,
    port: u16,
}

impl S3 {
    fn start() -> Self {
        let port = free_port();
        // Where it cannot be had, the test fails with the reason.
        done(script(&["fetch"]));
        let mut server = script(&["serve", &port.to_string()]);
        let child = server.stdin(Stdio::null()).spawn().unwrap();
        let server = Self { child, port };
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "the S3 server does not answer");
            sleep(Duration::from_millis(50));
        }
        server
    }

    fn ask(&self, word: &str) -> String {
        done(script(&[word, &self.port.to_string()]))
    }

    /// Makes the bucket, and configures a remote with the key of a host.
    fn to(sandbox: &Sandbox) -> Self {
        let server = Self::start();
        let keys = server.ask("setup");
        let (id, secret) = keys.trim().split_once(' ').unwrap();
        let port = server.port;
        configure(
            sandbox,
            &format!(
                "type = s3\nprovider = Other\naccess_key_id = {id}\nsecret_access_key = {secret}\nregion = us-east-1\n\
                 endpoint = http://127.0.0.1:{port}\n"
            ),
        );
        server
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn script(args: &[&str]) -> Command {
    let mut command = Command::new(repository().join("tests/stack/s3.sh"));
    // What this machine uses for servers of its own is not for one on the loopback.
    command.args(args).env_remove("AWS_CA_BUNDLE").env_remove("http_proxy");
    command
}

#[test]
fn a_key_that_may_make_no_buckets_serves() {
    if lacks_programs("offsite::s3::a_key_that_may_make_no_buckets_serves") {
        return;
    }
    let sandbox = plain("offs3");
    let server = S3::to(&sandbox);
    for stamp in POINTS {
        point(&sandbox, stamp, stamp, &format!("the snapshot of {stamp}").repeat(1000));
    }
    let contents = |stamp: &str| fs::read(sandbox.path(format!("backups/redis/dump_{stamp}.rdb"))).unwrap();
    let before = POINTS.map(contents);
    let sent = send(&sandbox);
    sent.assert_success().assert_log_has(
        "backup-offsite",
        "INFO Recovery point {} is at {}, compared by checksum",
    );
    assert_eq!(server.ask("buckets").trim(), "n8n-backups");

    // A second run looks at them, sends nothing, and makes no second version.
    let versions = server.ask("versions");
    assert_eq!(versions.lines().count(), 2 * POINTS.len(), "{versions}");
    assert_eq!(send(&sandbox).code, Some(2));
    assert_eq!(versions, server.ask("versions"));

    // The host is lost, and gets them back.
    for stamp in POINTS {
        fs::remove_file(sandbox.path(format!("backups/redis/dump_{stamp}.rdb"))).unwrap();
        fs::remove_file(sandbox.path(format!("backups/sets/{stamp}.sha256"))).unwrap();
        sandbox.run("fetch-offsite", &[stamp]).assert_success();
    }
    assert_eq!(before, POINTS.map(contents));

    // What may not be deleted there stays, and the run says why.
    sandbox.set("BACKUP_OFFSITE_KEEP_DAYS", "1");
    sandbox.set("BACKUP_KEEP_LAST", "1");
    let refused = send(&sandbox);
    refused
        .assert_error("old copies at n8n-backup:n8n-backups cannot be deleted: {}AccessDenied{}")
        .assert_log_has(
            "backup-offsite",
            "ERROR Hint: give rclone a key that may delete there, or set {}",
        );
    assert_eq!(versions, server.ask("versions"));
}

#[test]
fn a_bucket_that_is_not_there_is_named() {
    if lacks_programs("offsite::s3::a_bucket_that_is_not_there_is_named") {
        return;
    }
    let sandbox = plain("offs3none");
    let server = S3::to(&sandbox);
    sandbox.set("RCLONE_BUCKET", "n8nbt-none");
    point(&sandbox, POINTS[0], POINTS[0], "a snapshot");
    let refused = send(&sandbox);
    assert_eq!(refused.code, Some(1), "{refused}");
    refused.assert_log_has(
        "backup-offsite",
        "ERROR Hint: make the bucket of n8n-backup:n8nbt-none/{} there: it is missing, or this key may not see it",
    );
    assert_eq!(server.ask("buckets").trim(), "n8n-backups");
}
