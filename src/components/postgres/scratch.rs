//! The scratch server of a drill: a cluster of our own, whatever the image's entry point does.

use std::time::Duration;

use anyhow::{anyhow, bail, Context as _, Result};

use super::{logged_in, sql, Psql};
use crate::components::drill::{DrillEnv, Inconclusive, JOURNAL};
use crate::engine::{Exec, ScratchContainer, DATA_MOUNT};

/// The fact of a point with the libraries that the live server preloads, separated by blanks.
pub const PRELOAD_FACT: &str = "postgres.preload";
/// The fact of a point with the encoding and the locales of the live database, as `sql::Locale` takes them.
pub const LOCALE_FACT: &str = "postgres.locale";
/// The database that every server has.
pub const MAINTENANCE: &str = "postgres";

/// Makes a cluster and becomes its server. Takes the directory, the superuser, the libraries to preload and arguments for the
/// server. Run as root, since not every image has an account for the user that it runs as, which initdb demands.
const START: &str = concat!(
    r#"unset PGDATA PGHOST PGPORT PGUSER PGDATABASE PGOPTIONS PGPASSFILE PGSERVICE PGSERVICEFILE POSTGRES_INITDB_ARGS
dir=$1 superuser=$2 preload=$3
shift 3
fail() { echo "cannot make a cluster: $*" >&2; exit 1; }
bin=
IFS=:
set -f
for place in $PATH; do
  [ -z "$bin" ] && [ -x "$place/initdb" ] && [ -x "$place/postgres" ] && bin=$place
done
unset IFS
set +f
if [ -z "$bin" ]; then
  for place in "#,
    places!(),
    r#"; do
    [ -x "$place/initdb" ] && [ -x "$place/postgres" ] && bin=$place
  done
fi
[ -n "$bin" ] || fail "the image has no initdb and postgres in PATH, nor where images have them"
uid=$(id -u postgres 2>/dev/null)
if [ -z "$uid" ]; then
  uid=70
  echo "postgres:x:$uid:$uid::/tmp:/bin/sh" >>/etc/passwd
fi
gid=$(id -g postgres 2>/dev/null) || gid=$uid
mkdir -p "$dir/data" /run/postgresql /var/run/postgresql
chown "$uid:$gid" "$dir" "$dir/data" /run/postgresql /var/run/postgresql
chmod 700 "$dir/data"
chmod 1777 /tmp
if command -v setpriv >/dev/null && setpriv --reuid="$uid" --regid="$gid" --clear-groups true 2>/dev/null; then
  as() { setpriv --reuid="$uid" --regid="$gid" --clear-groups "$@"; }
  become() { exec setpriv --reuid="$uid" --regid="$gid" --clear-groups "$@"; }
elif tool=$(command -v gosu || command -v su-exec); then
  as() { "$tool" "$uid:$gid" "$@"; }
  become() { exec "$tool" "$uid:$gid" "$@"; }
elif command -v su >/dev/null; then
  as() { su -s /bin/sh -c 'exec "$0" "$@"' -- postgres "$@"; }
  become() { exec su -s /bin/sh -c 'exec "$0" "$@"' -- postgres "$@"; }
else
  fail "the image has no program to change the user (setpriv, gosu, su-exec or su)"
fi
cd "$dir" || exit 1
HOME=/tmp
export HOME
make() { as "$bin/initdb" -D "$dir/data" -U "$superuser" -E UTF8 -A trust --no-sync "$@" >/dev/null; }
# The locale of the image may not be one that it has.
make 2>/dev/null || { rm -rf "$dir/data"/*; make --locale=C; } || fail "initdb failed"
loaded=
for library in $preload; do
  file=${library##*/}
  for place in "$("$bin/pg_config" --pkglibdir 2>/dev/null)" "$bin/../lib" "$bin/../lib/postgresql" \
    "$(dirname "$(readlink -f "$bin/postgres")")/../lib"; do
    if [ -e "$place/$file.so" ]; then
      loaded=$loaded${loaded:+,}$library
      break
    fi
  done
done
[ -z "$loaded" ] || set -- -c "shared_preload_libraries=$loaded" "$@"
become "$bin/postgres" -D "$dir/data" "$@"
"#
);

/// What [`START`] says when it comes to no server.
const FAILED: &str = "cannot make a cluster: ";

/// The scratch server's settings: nothing in it has to outlive a crash, and nothing in it may wait for a client, since
/// none but ours can reach it. Parallel workers would want more shared memory than a container has.
///
/// What it says of an error quotes rows, and docker keeps it on disk until the container is gone.
const SETTINGS: [&str; 15] = [
    "port=5432",
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "autovacuum=off",
    "listen_addresses=127.0.0.1",
    "max_parallel_maintenance_workers=0",
    "max_parallel_workers_per_gather=0",
    "jit=off",
    "log_min_messages=fatal",
    // What a statement holds may be secret.
    "log_min_error_statement=panic",
    "log_statement=none",
    // Jobs that came with the data do not run. A server without these extensions keeps the values, and no more.
    "cron.launch_active_jobs=off",
    // The database of the drill: pg_cron can be created in the one of this name alone.
    "cron.database_name=n8n_backup_drill",
    "timescaledb.max_background_workers=0",
];

/// What the server says while it starts.
const STARTING: [&str; 3] = [
    "is starting up",
    "is not yet accepting connections",
    "is in recovery mode",
];

/// Extensions that can be created only where their library is preloaded.
const NEED_PRELOAD: [&str; 3] = ["pg_cron", "pgaudit", "timescaledb"];

/// What to preload, separated by spaces: what the live server does, else what the extensions of the dump need, since
/// the setting is shown to superusers alone.
fn to_preload(recorded: Option<&str>, extensions: &[String]) -> String {
    if let Some(recorded) = recorded.filter(|libraries| !libraries.is_empty()) {
        return recorded.to_owned();
    }
    let needed = |name: &&str| extensions.iter().any(|extension| extension == name);
    NEED_PRELOAD.into_iter().filter(needed).collect::<Vec<_>>().join(" ")
}

/// Starts an empty server of an image and waits until it lets us in. Gives also its version (`server_version_num`). No password:
/// nobody else can reach it.
pub fn start(
    env: &DrillEnv<'_>,
    image: &str,
    superuser: &str,
    extensions: &[String],
) -> Result<(ScratchContainer, u32)> {
    let preload = &to_preload(env.point.fact(PRELOAD_FACT), extensions);
    let started = start_with(env, image, superuser, preload);
    let (server, version, loaded) = match started {
        Err(error) if !preload.is_empty() && !format!("{error:#}").contains(FAILED) => {
            let error = error.context(format!(
                "Image {image} does not start with {preload}, as the live server does"
            ));
            JOURNAL.warning(&error);
            start_with(env, image, superuser, "")
        }
        done => done,
    }
    .with_context(|| format!("The scratch PostgreSQL of image {image} did not start"))
    .context(Inconclusive)?;
    let is_loaded = |library: &&str| loaded.split(',').any(|other| other.trim() == *library);
    for library in preload.split_whitespace().filter(|library| !is_loaded(library)) {
        JOURNAL.warn(format_args!(
            "The scratch PostgreSQL runs without {library}, which the live server preloads: image {image} does not have it"
        ));
    }
    Ok((server, version))
}

fn start_with(
    env: &DrillEnv<'_>,
    image: &str,
    superuser: &str,
    preload: &str,
) -> Result<(ScratchContainer, u32, String)> {
    let mut argv = vec!["-c", START, "sh", DATA_MOUNT, superuser, preload];
    for setting in SETTINGS {
        argv.extend(["-c", setting]);
    }
    let mut server = env.root_container(image, &argv)?;
    server.start()?;
    let answer = ready(env, &mut server, superuser)?;
    let (version, loaded) = answer.trim().split_once('|').context("unexpected answer")?;
    let (version, loaded) = (version.parse()?, loaded.to_owned());
    Ok((server, version, loaded))
}

/// Waits until the server lets us in. A login that is refused is so the next time too.
fn ready(env: &DrillEnv<'_>, server: &mut ScratchContainer, user: &str) -> Result<String> {
    const ASK: &str =
        "SELECT current_setting('server_version_num') || '|' || current_setting('shared_preload_libraries')";
    let target = sql::conninfo(user, MAINTENANCE, Some(PORT), "n8n-backup drill")?;
    let argv = logged_in(&["psql", "-XAtqw", "-d", &target, "-c", ASK]);
    server.wait(Duration::from_millis(100), |server| {
        let ask = env.docker.exec(server.id(), Exec::default(), &argv);
        let output = env.docker.answer("psql", ask, None)?;
        if output.success {
            return Ok(Some(output.text()));
        }
        if matches!(output.code, Some(126 | 127)) {
            bail!("it has no psql: {}", output.stderr);
        }
        let is_answer = |line: &&str| line.contains("FATAL:") && !STARTING.iter().any(|sign| line.contains(sign));
        let refused = output.stderr_lines().find(is_answer);
        refused.map_or(Ok(None), |line| Err(anyhow!("it refuses the login: {line}")))
    })
}

/// Where every scratch server listens.
pub const PORT: u16 = 5432;

/// psql as the superuser `user` on a scratch server of `version`.
pub fn psql<'a>(env: &'a DrillEnv<'_>, server: &'a ScratchContainer, user: &'a str, version: u32) -> Psql<'a> {
    let psql = Psql {
        docker: &env.docker,
        app: env.app,
        container: server.id(),
        user,
        options: "",
    };
    psql.of_loaded(version, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_extensions_need_is_preloaded_where_the_setting_was_not_shown() {
        let extensions = ["pgcrypto", "pgaudit", "pg_cron"].map(str::to_owned);
        assert_eq!(to_preload(None, &extensions), "pg_cron pgaudit");
        assert_eq!(to_preload(Some(""), &extensions), "pg_cron pgaudit");
        assert_eq!(to_preload(Some("auto_explain"), &extensions), "auto_explain");
        assert_eq!(to_preload(None, &[]), "");
    }
}
