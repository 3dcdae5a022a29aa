use std::process::Command;

use super::*;
use crate::testing::TempDir;

fn load(values: &[(&str, &str)], outer: &[(&str, &str)]) -> Result<Config> {
    let owned = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    let outer = owned(outer);
    Config::from_values(Path::new("/p"), true, &owned(values), &|name| outer.get(name).cloned())
}

#[test]
fn a_name_like_ours_that_is_not_ours_is_kept_for_a_warning() {
    let config = load(
        &[("BACKUP_RETENTON_DAYS", "30"), ("BACKUP_JOBS", "2"), ("MY_BACKUP", "x")],
        &[],
    )
    .unwrap();
    assert_eq!(config.unknown, ["BACKUP_RETENTON_DAYS"]);
    assert_eq!(load(&[], &[("BACKUP_OTHER", "1")]).unwrap().unknown, [""; 0]);
}

#[test]
fn defaults_are_those_of_the_table() {
    let config = load(&[], &[]).unwrap();
    assert_eq!(config.postgres_container, "n8n-postgres");
    assert_eq!(config.n8n_containers, ["n8n-main", "n8n-worker"]);
    assert_eq!(
        (config.redis_port, config.retention.days, config.min_free_kb),
        (6379, 7, 1_048_576)
    );
    assert_eq!(config.lock_file, Path::new("/tmp/n8n-backup.lock"));
    assert!(config.redis_password.is_none());
}

#[test]
fn the_file_wins_over_the_environment_and_empty_is_not_set() {
    let config = load(
        &[("POSTGRES_DB", "file"), ("REDIS_PORT", "")],
        &[("POSTGRES_DB", "outer"), ("POSTGRES_USER", "me")],
    );
    let config = config.unwrap();
    assert_eq!(
        (config.postgres_db.as_str(), config.postgres_user.as_str()),
        ("file", "me")
    );
    assert_eq!(config.redis_port, 6379);
}

#[test]
fn bad_values_are_named_and_secrets_are_not_shown() {
    for (name, value) in [
        ("BACKUP_RETENTION_DAYS", "-1"),
        ("BACKUP_RETENTION_DAYS", "7 days"),
        ("BACKUP_KEEP_YEARLY", "all"),
        ("REDIS_PORT", "65536"),
        ("BACKUP_STALL_SECONDS", "0"),
        ("BACKUP_N8N_VOLUME", "-v"),
        ("BACKUP_N8N_VOLUME", "/etc"),
        ("BACKUP_POSTGRES_CONTAINER", "a b"),
        ("BACKUP_HELPER_IMAGE", "--privileged"),
        ("BACKUP_DRILL", "yes"),
        ("BACKUP_DRILL_MEMORY", "1 g"),
        ("BACKUP_DRILL_MEMORY", "0g"),
        ("BACKUP_DRILL_MEMORY", "lots"),
        ("BACKUP_DRILL_CPUS", "0"),
        ("BACKUP_DRILL_CPUS", "1e3"),
        ("RCLONE_REMOTE", "--dump"),
        ("RCLONE_REMOTE", ":local"),
        ("RCLONE_SYNC_ENCRYPTED_ONLY", "flase"),
    ] {
        let error = load(&[(name, value)], &[]).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(value), "{error}");
    }
    let config = load(&[("REDIS_PASSWORD", "hunter2")], &[]).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn a_directory_of_a_remote_stays_absolute() {
    for (text, path) in [
        ("", "n8n-backups"),
        ("bucket/n8n/", "bucket/n8n"),
        ("/mnt/disk/n8n", "/mnt/disk/n8n"),
        ("/mnt/disk//", "/mnt/disk"),
        ("/", "/"),
    ] {
        let config = load(&[("RCLONE_BUCKET", text)], &[]).unwrap();
        assert_eq!(config.remote(), format!("n8n-backup:{path}"));
    }
}

#[test]
fn encryption_is_by_one_means() {
    let read = |values| load(values, &[]).map(|config| config.encryption);
    assert_eq!(read(&[]).unwrap(), None);
    assert_eq!(
        read(&[("BACKUP_GPG_PASSPHRASE", " a b ")]).unwrap(),
        Some(Encryption::Passphrase(Secret::new(" a b ")))
    );
    assert_eq!(
        read(&[("BACKUP_GPG_RECIPIENT", "keys/me.asc")]).unwrap(),
        Some(Encryption::Recipient(Recipient::File(PathBuf::from("/p/keys/me.asc"))))
    );
    assert_eq!(
        read(&[("BACKUP_GPG_RECIPIENT", "me@example.org")]).unwrap(),
        Some(Encryption::Recipient(Recipient::Key("me@example.org".to_owned())))
    );
    assert!(read(&[("BACKUP_GPG_PASSPHRASE", "a\nb")]).is_err());
    assert!(read(&[("BACKUP_GPG_PASSPHRASE", "a"), ("BACKUP_GPG_RECIPIENT", "b")]).is_err());
}

#[test]
fn what_is_read_is_what_the_table_has() {
    let asked = std::cell::RefCell::new(std::collections::BTreeSet::new());
    let outer = |name: &str| {
        asked.borrow_mut().insert(name.to_owned());
        None
    };
    Config::from_values(Path::new("/p"), true, &BTreeMap::new(), &outer).unwrap();
    let known = SETTINGS.iter().map(|setting| setting.name.to_owned()).collect();
    assert_eq!(asked.into_inner(), known);
}

#[test]
fn an_alarm_goes_where_a_run_would_ping() {
    let ping = |text: &str| {
        let outer = |name: &str| (name == "HOST").then(|| "hc.example".to_owned());
        let file = Path::new("/p/.env");
        let config = Config::of_channels_in(Path::new("/p"), file, text.as_bytes(), &outer).unwrap();
        config.ping_url.as_ref().map(|url| url.reveal().to_owned())
    };
    let broken = "BACKUP_JOBS=many\nBACKUP_GPG_PASSPHRASE='not closed\n";
    let url = "BACKUP_PING_URL=\"https://${HOST}/${ID:-none}\"\n";
    for (text, expected) in [
        (format!("ID=7\n{url}{broken}"), "https://hc.example/7"),
        (format!("BACKUP_JOBS=many\n{url}"), "https://hc.example/none"),
        (format!("{broken}ID=\"7\"\n{url}"), "https://hc.example/7"),
        (format!("A=x\0y\nID=7\n{url}"), "https://hc.example/7"),
    ] {
        assert_eq!(ping(&text).as_deref(), Some(expected), "{text}");
    }
    // A variable that cannot be read makes no other address.
    assert_eq!(ping(&format!("ID=1\nID=${{LACKING:?}}\n{url}")), None);
    // No backup is left out for the address of its monitor: the channel itself refuses that.
    assert!(load(&[("BACKUP_PING_URL", "https://h/${ID}")], &[]).is_ok());
}

#[test]
fn a_pipe_in_the_place_of_the_environment_file_is_an_error() {
    let dir = TempDir::new();
    let env = dir.path().join(".env");
    assert!(Command::new("mkfifo").arg(&env).status().unwrap().success());
    for load in [Config::load, Config::load_to_restore] {
        let error = format!("{:#}", load(dir.path()).unwrap_err());
        assert!(error.contains(".env: it is not a regular file"), "{error}");
    }
    // Those who watch are told all the same, as the environment says.
    assert!(Config::of_channels(dir.path()).is_ok());
    std::fs::remove_file(&env).unwrap();
    std::fs::write(dir.path().join("own"), "POSTGRES_USER=me\n").unwrap();
    std::os::unix::fs::symlink("own", &env).unwrap();
    assert_eq!(Config::load(dir.path()).unwrap().postgres_user, "me");
}
