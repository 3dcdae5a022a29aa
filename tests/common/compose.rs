//! Stacks that docker compose makes in a sandbox's directory, from compose files in our own words.

use std::fs;
use std::process::Command;
use std::sync::OnceLock;

use super::stack::engine;
use super::{done, output, Sandbox};

/// An image whose name, variables and start script are those of n8n's, and which only sleeps.
pub const N8N_IMAGE: &str = "n8n-backup-test/stand-in/n8n:2";

const N8N_BUILD: &str = r#"FROM n8n-backup-test/busybox:1
RUN printf '#!/bin/sh\nshift\nexec "$@"\n' >/bin/tini && \
    printf '#!/bin/sh\ncase "$1" in ""|start|worker|webhook) ;; *) exec "$@" ;; esac\ntrap "exit 0" TERM INT\nsleep 1000000 & wait\n' \
      >/docker-entrypoint.sh && \
    chmod 755 /bin/tini /docker-entrypoint.sh
ENV N8N_RELEASE_TYPE=stable
ENTRYPOINT ["tini", "--", "/docker-entrypoint.sh"]
"#;

/// An image of Redis that starts as the official one does: whatever is not its user's is given to it first, which a
/// container without capabilities may not do.
pub const STRICT_REDIS_IMAGE: &str = "n8n-backup-test/stand-in/redis:1";

const STRICT_REDIS_BUILD: &str = r#"FROM n8n-backup-test/redis:1
RUN printf '#!/bin/sh\nset -e\nfind . ! -user 999 -exec chown 999 {} +\nexec setpriv --reuid=999 --regid=999 --clear-groups "$@"\n' \
      >/usr/local/bin/strict-entrypoint && chmod 755 /usr/local/bin/strict-entrypoint && mkdir -p /data && chown 999:999 /data
WORKDIR /data
ENTRYPOINT ["strict-entrypoint"]
CMD ["redis-server"]
"#;

/// Builds [`N8N_IMAGE`] where it is missing, from an image that is there.
pub fn stand_in_image() {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| build(N8N_BUILD, N8N_IMAGE));
}

/// Builds [`STRICT_REDIS_IMAGE`] where it is missing.
pub fn strict_redis_image() {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| build(STRICT_REDIS_BUILD, STRICT_REDIS_IMAGE));
}

fn build(recipe: &str, image: &str) {
    engine();
    let mut build = Command::new("sh");
    build.args([
        "-c",
        "printf '%s' \"$1\" | docker build -q -t \"$2\" -",
        "sh",
        recipe,
        image,
    ]);
    done(build);
}

/// The command of Compose: the plugin, or the program; Debian's package is installed where neither is there.
fn compose() -> &'static [&'static str] {
    static COMMAND: OnceLock<&[&str]> = OnceLock::new();
    COMMAND.get_or_init(|| {
        let works = |argv: &[&str]| {
            let mut command = Command::new(argv[0]);
            command.args(&argv[1..]).arg("version");
            command.output().is_ok_and(|output| output.status.success())
        };
        let known: [&[&str]; 2] = [&["docker", "compose"], &["docker-compose"]];
        if let Some(found) = known.iter().find(|argv| works(argv)) {
            return found;
        }
        let mut install = Command::new("sh");
        install.args([
            "-c",
            "apt-get update -qq; apt-get install -y --no-install-recommends docker-compose",
        ]);
        let installed = install.output();
        assert!(
            works(known[1]),
            "docker compose is needed for this test: install docker-compose ({installed:?})"
        );
        known[1]
    })
}

impl Sandbox {
    /// Writes the compose file. `services` are indented by two blanks; each gets the sandbox's labels with `{labels}`,
    /// and its prefix with `{prefix}`. The volumes `n8n_data` and `pg_data` are there.
    pub fn compose_file(&self, services: &str) {
        let labels = self.labels();
        let labels = |indent: &str| {
            let each = labels.iter().filter(|word| *word != "--label");
            let lines = each.map(|label| format!("{indent}  - {label}\n"));
            format!("labels:\n{}", lines.collect::<String>())
        };
        let volume = |name: &str| format!("  {name}:\n    name: {}_{name}\n    {}", self.prefix(), labels("    "));
        let services = services
            .replace("{prefix}", self.prefix())
            .replace("{labels}", &labels("    "));
        let text = format!(
            "version: '3.7'\nservices:\n{services}\nvolumes:\n{}{}networks:\n  default:\n    name: {}-net\n    {}",
            volume("n8n_data"),
            volume("pg_data"),
            self.prefix(),
            labels("    ")
        );
        self.write("docker-compose.yml", text);
    }

    /// Runs Compose in the project directory.
    pub fn compose(&self, args: &[&str]) -> String {
        self.compose_as(self.prefix(), args)
    }

    /// As [`Sandbox::compose`], as another project.
    pub fn compose_as(&self, project: &str, args: &[&str]) -> String {
        let argv = compose();
        let mut command = Command::new(argv[0]);
        command
            .args(&argv[1..])
            .args(["--project-name", project])
            .args(args)
            .current_dir(self.dir());
        let output = output(command);
        assert!(
            output.status.success(),
            "compose {args:?}: {}{}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            fs::read_to_string(self.path("docker-compose.yml")).unwrap_or_default()
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
