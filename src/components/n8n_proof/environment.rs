//! The environment of n8n in a drill: that of the stack's n8n, without what would lead out of the scratch containers.

use std::collections::BTreeMap;

use crate::config::Secret;

/// The port of n8n; nothing else listens where it does but PostgreSQL.
pub const PORT: &str = "5678";
/// What is never taken over, by how it begins: what concerns the container, or would reach out, or is found on another server.
const DROPPED: [&str; 31] = [
    "PATH",
    "HOME",
    "HOSTNAME",
    "LD_",
    "DOCKER_",
    "NODE_OPTIONS",
    "NODE_PATH",
    "NODE_EXTRA_CA_CERTS",
    "DB_",
    "QUEUE_",
    "EXECUTIONS_MODE",
    "OFFLOAD_",
    "WEBHOOK_",
    "EXTERNAL_",
    "CREDENTIALS_OVERWRITE_",
    "N8N_CACHE_",
    "N8N_EVENTBUS_",
    "N8N_EXTERNAL_",
    "N8N_METRICS",
    "N8N_POSTHOG_",
    "N8N_RUNNERS_",
    "N8N_SSL_",
    "N8N_SMTP_",
    "N8N_LICENSE_",
    "N8N_LOG_",
    "N8N_SENTRY_",
    "N8N_OTEL_",
    "N8N_DIAGNOSTICS_",
    "N8N_MULTI_MAIN_",
    "N8N_ENDPOINT_HEALTH",
    "N8N_CONFIG_FILES",
];
/// What is of [`DROPPED`] and says what the database is like.
const KEPT: [&str; 3] = ["DB_POSTGRESDB_SCHEMA", "DB_TABLE_PREFIX", "DB_SQLITE_POOL_SIZE"];

/// What else of n8n's own names a server of the live stack, or of the Internet, by how it ends.
const ADDRESSES: [&str; 7] = ["_HOST", "_URL", "_URLS", "_ENDPOINT", "_SERVER", "_DSN", "_REGISTRY"];

/// What is the same in every drill.
const SET: [(&str, &str); 16] = [
    ("EXECUTIONS_MODE", "regular"),
    ("OFFLOAD_MANUAL_EXECUTIONS_TO_WORKERS", "false"),
    ("N8N_RUNNERS_MODE", "internal"),
    ("N8N_PORT", PORT),
    ("N8N_PATH", "/"),
    ("N8N_PROTOCOL", "http"),
    ("N8N_HOST", "localhost"),
    ("N8N_LISTEN_ADDRESS", "127.0.0.1"),
    ("N8N_DIAGNOSTICS_ENABLED", "false"),
    ("N8N_VERSION_NOTIFICATIONS_ENABLED", "false"),
    ("N8N_TEMPLATES_ENABLED", "false"),
    ("N8N_LICENSE_AUTO_RENEW_ENABLED", "false"),
    ("N8N_LICENSE_DETACH_FLOATING_ON_SHUTDOWN", "false"),
    ("N8N_REINSTALL_MISSING_PACKAGES", "false"),
    ("N8N_LOG_LEVEL", "info"),
    ("N8N_LOG_OUTPUT", "console"),
];

/// What a drill decides.
pub struct Place<'a> {
    pub database: &'a [(&'static str, String)],
    pub key: &'a Secret,
    pub user_folder: &'a str,
}

/// The variables that n8n gets.
pub fn of_drill(live: &BTreeMap<String, String>, place: &Place<'_>) -> Vec<(String, String)> {
    let chosen = [
        ("N8N_ENCRYPTION_KEY", place.key.reveal()),
        ("N8N_USER_FOLDER", place.user_folder),
    ];
    let database = place.database.iter().map(|(name, value)| (*name, value.as_str()));
    let set: Vec<(&str, &str)> = SET.into_iter().chain(chosen).chain(database).collect();
    let is_set = |name: &str| set.iter().any(|(other, _)| *other == name);
    let taken = live.iter().filter(|(name, _)| is_taken(name) && !is_set(name));
    let mut all: Vec<(String, String)> = taken.map(|(name, value)| (name.clone(), value.clone())).collect();
    all.extend(
        set.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    );
    all
}

fn is_taken(name: &str) -> bool {
    // Those that a shell can export.
    let fits = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    // What a file holds is not there; where n8n stores data is there no more, or in a cloud.
    let leads_out = name.ends_with("_FILE")
        || name.ends_with("_FILES")
        || name.to_ascii_lowercase().ends_with("_proxy")
        || name.contains("REDIS")
        || (name.starts_with("N8N_")
            && (ADDRESSES.iter().any(|end| name.ends_with(end))
                || name.contains("STORAGE")
                || name.contains("BINARY_DATA_MODE")));
    let dropped = DROPPED.iter().any(|begin| name.starts_with(begin)) && !KEPT.contains(&name);
    fits && !leads_out && !dropped
}

/// Lines for a shell that export the variables.
pub fn script(variables: &[(String, String)]) -> String {
    let quoted = |value: &str| value.replace('\'', "'\\''");
    variables
        .iter()
        .map(|(name, value)| format!("export {name}='{}'\n", quoted(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_lead_out_is_not_taken_over() {
        let live: BTreeMap<String, String> = [
            ("PATH", "/bin"),
            ("HOME", "/root"),
            ("LD_PRELOAD", "/x.so"),
            ("DOCKER_HOST", "tcp://x"),
            ("https_proxy", "http://x"),
            ("HTTP_PROXY", "http://x"),
            ("NODE_OPTIONS", "--require=/x"),
            ("DB_TYPE", "sqlite"),
            ("DB_POSTGRESDB_HOST", "live"),
            ("DB_POSTGRESDB_PASSWORD_FILE", "/run/secrets/x"),
            ("DB_POSTGRESDB_SSL_ENABLED", "true"),
            ("QUEUE_BULL_REDIS_HOST", "live"),
            ("EXECUTIONS_MODE", "queue"),
            ("N8N_RUNNERS_MODE", "external"),
            ("N8N_ENCRYPTION_KEY", "another"),
            ("N8N_ENCRYPTION_KEY_FILE", "/run/secrets/x"),
            ("N8N_EXTERNAL_STORAGE_S3_HOST", "s3"),
            ("N8N_DEFAULT_BINARY_DATA_MODE", "s3"),
            ("N8N_PORT", "80"),
            ("N8N_HOST", "live"),
            ("WEBHOOK_URL", "https://live"),
            ("N8N_CACHE_BACKEND", "redis"),
            ("N8N_CACHE_REDIS_TTL", "1"),
            ("N8N_REDIS_KEY_PREFIX", "n8n"),
            ("N8N_METRICS_QUEUE_METRICS_INTERVAL", "1"),
            ("N8N_EXTERNAL_SECRETS_UPDATE_INTERVAL", "1"),
            ("N8N_LICENSE_SERVER_URL", "http://live"),
            ("N8N_VERSION_NOTIFICATIONS_ENDPOINT", "http://live"),
            ("N8N_COMMUNITY_PACKAGES_REGISTRY", "http://live"),
            ("CREDENTIALS_OVERWRITE_ENDPOINT", "x"),
            ("EXTERNAL_HOOK_FILES", "/hook.js"),
            ("ODD-ONE", "a"),
            ("DB_POSTGRESDB_SCHEMA", "n8n"),
            ("DB_TABLE_PREFIX", "x_"),
            ("GENERIC_TIMEZONE", "Europe/Berlin"),
            ("N8N_ENV_FEAT_ENCRYPTION_KEY_ROTATION", "true"),
            ("MINE", "a b=c"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let place = Place {
            database: &[
                ("DB_TYPE", "postgresdb".to_owned()),
                ("DB_POSTGRESDB_HOST", "127.0.0.1".to_owned()),
                ("DB_POSTGRESDB_USER", "n8n".to_owned()),
            ],
            key: &Secret::new("right"),
            user_folder: "/home/node",
        };
        let all = of_drill(&live, &place);
        let get = |name: &str| {
            let found: Vec<&str> = all
                .iter()
                .filter(|(other, _)| other == name)
                .map(|(_, value)| value.as_str())
                .collect();
            assert!(found.len() < 2, "{name}");
            found.first().copied()
        };
        for name in [
            "PATH",
            "HOME",
            "LD_PRELOAD",
            "DOCKER_HOST",
            "https_proxy",
            "HTTP_PROXY",
            "NODE_OPTIONS",
            "WEBHOOK_URL",
            "N8N_CACHE_BACKEND",
            "N8N_METRICS_QUEUE_METRICS_INTERVAL",
            "N8N_EXTERNAL_SECRETS_UPDATE_INTERVAL",
            "N8N_LICENSE_SERVER_URL",
            "N8N_VERSION_NOTIFICATIONS_ENDPOINT",
            "N8N_COMMUNITY_PACKAGES_REGISTRY",
            "CREDENTIALS_OVERWRITE_ENDPOINT",
            "EXTERNAL_HOOK_FILES",
            "ODD-ONE",
        ] {
            assert_eq!(get(name), None, "{name}");
        }
        assert!(!all.iter().any(|(name, _)| name.ends_with("_FILE")
            || name.contains("S3")
            || name.contains("QUEUE")
            || name.contains("REDIS")));
        for (name, value) in [
            ("DB_TYPE", "postgresdb"),
            ("DB_POSTGRESDB_HOST", "127.0.0.1"),
            ("DB_POSTGRESDB_USER", "n8n"),
            ("DB_POSTGRESDB_SCHEMA", "n8n"),
            ("DB_TABLE_PREFIX", "x_"),
            ("EXECUTIONS_MODE", "regular"),
            ("N8N_RUNNERS_MODE", "internal"),
            ("N8N_ENCRYPTION_KEY", "right"),
            ("N8N_PORT", PORT),
            ("N8N_HOST", "localhost"),
            ("GENERIC_TIMEZONE", "Europe/Berlin"),
            ("N8N_ENV_FEAT_ENCRYPTION_KEY_ROTATION", "true"),
            ("MINE", "a b=c"),
        ] {
            assert_eq!(get(name), Some(value), "{name}");
        }
        assert_eq!(get("DB_POSTGRESDB_SSL_ENABLED"), None);
    }

    #[test]
    fn values_stay_what_they_are_in_a_shell() {
        let variables = [("A".to_owned(), "a'b $(x)\n\"".to_owned())];
        assert_eq!(script(&variables), "export A='a'\\''b $(x)\n\"'\n");
    }
}
