//! The commands of the documentation, word for word, and what they are typed into.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Stdio};

use super::Sandbox;

/// `docker compose`, as far as the documentation uses it: makes, starts and removes the stack of the `.env` in the working
/// directory. It stands for a plug-in that need not be there; what it makes is real.
const COMPOSE: &str = r#"
create() {
  "$real" inspect "$prefix-$1" >/dev/null 2>&1 && return
  name=$1 mount=$2 image=$3
  shift 3
  "$real" volume create "${labels[@]}" "${mount%%:*}" >/dev/null
  "$real" create "${labels[@]}" --name "$prefix-$name" --network none --stop-timeout 1 -v "$mount" "${options[@]}" \
    "n8n-backup-test/$image:1" "$@" >/dev/null
}
if [ "$1" = compose ]; then
  set -e
  [ -f .env ] || { echo 'compose: no .env in the working directory' >&2; exit 1; }
  if [ "$2" = down ]; then
    exec "$real" rm -f "$prefix"-{postgres,redis,n8n-main,n8n-worker} >/dev/null
  fi
  password=$(grep '^POSTGRES_PASSWORD=' .env)
  options=(--stop-signal SIGINT -e POSTGRES_USER=n8n -e POSTGRES_DB=n8n -e "$password")
  create postgres "${prefix}_postgres_data:/var/lib/postgresql/data" postgres
  options=()
  create redis "${prefix}_redis_data:/data" redis redis-server --port 6386
  create n8n-main "${prefix}_n8n_data:/home/node/.n8n" busybox sleep 86400
  create n8n-worker "${prefix}_n8n_data:/home/node/.n8n" busybox sleep 86400
  case "$2 $3" in
    'up --no-start') ;;
    'up -d') exec "$real" start "$prefix"-{postgres,redis,n8n-main,n8n-worker} ;;
    *) echo "compose: not known here: $*" >&2; exit 1 ;;
  esac
  exit 0
fi
"#;

/// The blocks of commands in the section `heading` of a page.
pub fn blocks<'a>(page: &'a str, heading: &str) -> Vec<&'a str> {
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let blocks = section.split("```sh\n").skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap()).collect()
}

/// A directory with a `docker` that knows `compose`, for the stack of a sandbox.
pub fn compose(sandbox: &Sandbox) -> std::path::PathBuf {
    let labels = sandbox.labels().join(" ");
    sandbox.stand_in_docker(&format!("prefix={}\nlabels=({labels})\n{COMPOSE}", sandbox.prefix()))
}

/// A shell in `dir`, which stops at the first command that fails.
pub fn shell(script: &str, dir: &Path, docker: &Path) -> Command {
    let mut shell = Command::new("bash");
    shell
        .args(["-euo", "pipefail", "-c", script])
        .env_clear()
        .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", docker.display()))
        .current_dir(dir)
        .stdin(Stdio::null());
    for name in ["DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG"] {
        if let Some(value) = std::env::var_os(name) {
            shell.env(name, value);
        }
    }
    shell
}
