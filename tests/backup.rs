//! The backup commands on a real stack.

mod common;

use common::{mode, Sandbox};

#[test]
fn backup_all_makes_four_private_files_in_less_than_two_seconds() {
    let sandbox = Sandbox::new("all").stack().seeded().build();
    let outcome = sandbox.run("backup-all", &[]);
    outcome.assert_success().assert_logged_as_printed();
    outcome.assert_messages(
        "backup-all",
        &[
            "INFO ==========================================",
            "INFO Starting full backup process",
            "INFO ==========================================",
            "INFO Disk space check passed: {}i available",
            "INFO Running: cleanup-backups.sh",
            "INFO Running: backup-postgres.sh",
            "INFO Running: backup-redis.sh",
            "INFO Running: backup-n8n.sh",
            "INFO Running: env file backup",
            "INFO Backing up environment file",
            "SUCCESS Environment backup completed: {}.backup ({})",
            "INFO ==========================================",
            "SUCCESS All backups completed successfully ({}/{})",
        ],
    );
    for kind in ["postgres", "redis", "n8n", "env"] {
        assert_eq!(mode(&sandbox.backup(kind)), 0o600, "{kind}");
        assert!(sandbox.leftovers(kind).is_empty(), "{kind}");
    }
    assert!(outcome.took.as_secs_f64() < 2.0, "{outcome}");
}
