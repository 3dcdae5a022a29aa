//! What Redis and its checker answer, as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Error;

use crate::process::hinted;

/// `message`, which tells a reply of Redis or its client, with what to do about it.
pub(super) fn explained(message: String) -> Error {
    let hint = if message.contains("NOAUTH") || message.contains("WRONGPASS") {
        "set REDIS_PASSWORD in .env, and REDIS_USERNAME for another user than the default one"
    } else if message.contains("Connection refused") {
        "set REDIS_PORT in .env to the port that Redis listens on in its container"
    } else if message.contains("NOPERM") {
        "allow the user of Redis what it is asked: ACL SETUSER ... +info +lastsave +bgsave"
    } else {
        return Error::msg(message);
    };
    hinted(message, hint).into()
}

/// An argument as redis-cli reads it from a script, whatever bytes it has.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for byte in text.bytes() {
        let _ = write!(out, "\\x{byte:02x}");
    }
    out.push('"');
    out
}

/// The `name:value` lines of an INFO reply.
pub(super) fn fields(info: &str) -> BTreeMap<String, String> {
    info.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

/// The value in the reply to `CONFIG GET name`.
pub(super) fn value_of<'a>(reply: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = reply.lines();
    (lines.next() == Some(name))
        .then(|| lines.next())
        .flatten()
        .filter(|value| !value.is_empty())
}

/// The sum of keys over all databases of an `INFO keyspace` reply.
pub(super) fn keys(reply: &str) -> Option<u64> {
    let databases = keyspace(reply)?;
    databases
        .values()
        .try_fold(0, |sum: u64, keys| sum.checked_add(keys.total))
}

/// The files and arguments in the reply to `MODULE LIST`: for each the lines `name`, `ver`, `path` and `args`, each with its value
/// in the next ones. What is built in has no file. None where no file is named, as before Redis 7 or where the command is
/// denied.
pub(super) fn modules(reply: &str) -> Option<Vec<Vec<String>>> {
    let mut modules: Vec<Vec<String>> = Vec::new();
    let mut lines = reply.lines().peekable();
    while let Some(line) = lines.next() {
        match line.trim() {
            "path" => {
                let path = lines.next().unwrap_or_default().trim();
                modules.push(vec![path.to_owned()]);
            }
            "args" => {
                while let Some(argument) = lines.next_if(|line| line.trim() != "name") {
                    let argument = argument.trim();
                    modules
                        .last_mut()
                        .into_iter()
                        .filter(|_| !argument.is_empty())
                        .for_each(|module| {
                            module.push(argument.to_owned());
                        });
                }
            }
            _ => {}
        }
    }
    modules.retain(|module| module.first().is_some_and(|path| path.starts_with('/')));
    (!modules.is_empty() || reply.is_empty()).then_some(modules)
}

/// How many keys there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) total: u64,
    /// Those with a time of expiry; they may vanish at any moment.
    pub(super) expiring: u64,
}

impl Keys {
    pub(super) fn lasting(self) -> u64 {
        self.total.saturating_sub(self.expiring)
    }
}

/// A script over the keys of the queue, `PREFIX:*`: deletes them and gives how many they were, or counts the jobs that
/// wait or run.
pub(super) fn queue_script(what: &str) -> String {
    let each = match what {
        "DELETE" => "sum = sum + redis.call('DEL', key)",
        _ => {
            "local list = string.match(key, ':(%a+)$')
             if list == 'wait' or list == 'active' or list == 'paused' then
               local kind = redis.call('TYPE', key)
               if (kind.ok or kind) == 'list' then sum = sum + redis.call('LLEN', key) end
             end"
        }
    };
    format!(
        "if redis.replicate_commands then redis.replicate_commands() end
         local pattern = string.gsub(ARGV[1], '[%*%?%[%]\\\\]', '\\\\%0') .. ':*'
         local sum, cursor = 0, '0'
         repeat
           local found = redis.call('SCAN', cursor, 'MATCH', pattern, 'COUNT', 1000)
           cursor = found[1]
           for _, key in ipairs(found[2]) do
             {each}
           end
         until cursor == '0'
         return sum"
    )
}

/// The keys of each database in an `INFO keyspace` reply (`db0:keys=3,expires=0,avg_ttl=0`); none of a refusal.
pub(super) fn keyspace(reply: &str) -> Option<BTreeMap<u32, Keys>> {
    if !reply.starts_with("# Keyspace") {
        return None;
    }
    let mut databases = BTreeMap::new();
    for (name, value) in fields(reply) {
        let Some(number) = name.strip_prefix("db").and_then(|number| number.parse().ok()) else {
            continue;
        };
        let field = |name: &str| {
            value
                .split(',')
                .find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
                .and_then(|count| count.parse().ok())
        };
        let keys = Keys {
            total: field("keys")?,
            expiring: field("expires")?,
        };
        databases.insert(number, keys);
    }
    Some(databases)
}

/// Runs the checker of snapshots, by Redis's name or Valkey's; exit code 127 where there is neither.
pub(super) const CHECKER: [&str; 4] = [
    "sh",
    "-c",
    "for name in redis-check-rdb valkey-check-rdb; do command -v \"$name\" >/dev/null && exec \"$name\" \"$1\"; done; exit 127",
    "sh",
];

/// What redis-check-rdb has counted, without the keys that had expired by then.
pub(super) fn checked_keys(text: &str) -> Option<Keys> {
    let number = |what: &str| {
        text.lines()
            .filter_map(|line| line.strip_prefix("[info] "))
            .find_map(|line| line.strip_suffix(what)?.trim().parse::<u64>().ok())
    };
    let (read, expires, expired) = (number("keys read")?, number("expires")?, number("already expired")?);
    Some(Keys {
        total: read.checked_sub(expired)?,
        expiring: expires.checked_sub(expired)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read() {
        assert_eq!(
            keys("# Keyspace\ndb0:keys=3,expires=1,avg_ttl=0\ndb12:keys=4,expires=0,avg_ttl=0"),
            Some(7)
        );
        assert_eq!(keys("# Keyspace"), Some(0));
        assert_eq!(keys("# Keyspace\ndb0:expires=1"), None);
        assert_eq!(
            keys("NOPERM User n8n has no permissions to run the 'info' command"),
            None
        );
        assert_eq!(value_of("dir\n/data x", "dir"), Some("/data x"));
        assert_eq!(value_of("ERR unknown command 'CONFIG'", "dir"), None);
        assert_eq!(value_of("", "dir"), None);
        assert_eq!(fields("# P\nrdb_saves:4\nx:y:z")["x"], "y:z");
    }

    #[test]
    fn modules_come_with_their_files_and_arguments() {
        let built_in = "name\nvectorset\nver\n1\npath\n\nargs\n\n";
        let reply = format!("name\nReJSON\nver\n20808\npath\n/lib/rejson.so\nargs\n\n{built_in}name\nsearch\nver\n2\npath\n/lib/s.so\nargs\nA\n1");
        let listed = modules(&reply).unwrap();
        assert_eq!(listed, [vec!["/lib/rejson.so"], vec!["/lib/s.so", "A", "1"]]);
        assert!(modules("").unwrap().is_empty());
        for untold in [
            "ERR unknown command 'MODULE'",
            "NOPERM this user has no permissions to run the 'module|list' command",
            "name\nReJSON\nver\n20808",
            built_in,
        ] {
            assert_eq!(modules(untold), None, "{untold}");
        }
    }

    #[test]
    fn any_password_is_one_argument() {
        assert_eq!(quoted("a \"\n"), r#""\x61\x20\x22\x0a""#);
    }

    #[test]
    fn keys_are_counted() {
        let databases =
            keyspace("# Keyspace\ndb0:keys=3,expires=1,avg_ttl=0\ndb12:keys=4,expires=0,avg_ttl=0").unwrap();
        assert_eq!(databases[&0].lasting(), 2);
        assert_eq!(databases[&12], Keys { total: 4, expiring: 0 });
        assert!(keyspace("# Keyspace").unwrap().is_empty());
        assert!(keyspace("# Keyspace\ndb0:keys=x,expires=1").is_none());
        let output = "[offset 9] Checksum OK\n[info] 10 keys read\n[info] 4 expires\n[info] 1 already expired";
        assert_eq!(checked_keys(output), Some(Keys { total: 9, expiring: 3 }));
        assert_eq!(checked_keys("nothing"), None);
    }
}
