//! Programs in containers.

use std::process::Command;

use anyhow::Result;

use super::{ContainerSpec, Docker};
use crate::store::space;

/// Runs a program in a container and ends it when standard input closes, so that it does not outlive the docker client
/// that started it: `docker exec` leaves it running, with its locks. The program itself reads nothing.
///
/// Where the image has GNU `stdbuf`, the program writes 64 KB at a time instead of 4: the engine carries each write by
/// itself, and a dump then costs it a tenth less (docs/performance.md).
///
/// Every child is waited for. A container's first process inherits what is left, and PostgreSQL as that process takes a
/// stranger that dies by a signal for a crashed backend and restarts the database.
const LEASH: &str = r#"exec 3<&0 </dev/null
if stdbuf -o64K true 2>/dev/null; then set -- stdbuf -o64K "$@"; fi
"$@" </dev/null 3<&- &
program=$!
(read -r _ <&3; kill -TERM "$program") >/dev/null 2>&1 &
leash=$!
wait "$program"
status=$?
kill "$leash" 2>/dev/null
wait "$leash" 2>/dev/null
exit "$status""#;

/// Runs a program in a container that reads much: 64 KB at a time instead of 4, where the image has GNU `stdbuf`. psql
/// then takes a sixth less time for a load (docs/performance.md).
const WIDE_INPUT: &str = r#"if stdbuf -i64K true </dev/null 2>/dev/null; then exec stdbuf -i64K "$@"; fi
exec "$@""#;

/// How [`Docker::exec`] runs a program.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exec<'a> {
    /// Keeps standard input open.
    pub interactive: bool,
    /// Returns at once, while the program runs on.
    pub detached: bool,
    /// Variables for the program; they show in the engine's records, so never a secret.
    pub env: &'a [(&'a str, &'a str)],
    /// The user to run as; the container's own when none.
    pub user: Option<&'a str>,
}

impl Docker {
    /// `docker exec` of a program in a container.
    pub fn exec(&self, container: &str, how: Exec<'_>, argv: &[&str]) -> Command {
        let mut command = self.command(["exec"]);
        if how.interactive {
            command.arg("-i");
        }
        if how.detached {
            command.arg("-d");
        }
        if let Some(user) = how.user {
            command.args(["-u", user]);
        }
        for (name, value) in how.env {
            command.args(["-e", &format!("{name}={value}")]);
        }
        if let Some(login) = self.login.as_ref().filter(|login| login.container == container) {
            command.args(["-e", login.variable]);
            command.env(login.variable, login.secret.reveal());
        }
        command.arg("--").arg(container).args(argv);
        command
    }

    /// `docker exec` of a program that reads nothing and is ended, in the container too, when the standard input of the
    /// docker client closes. To be started with [`process::Input::Leash`].
    pub fn exec_leashed(&self, container: &str, env: &[(&str, &str)], argv: &[&str]) -> Command {
        self.exec_under(LEASH, container, env, argv)
    }

    /// As [`Docker::exec_leashed`] of the program that a shell script leaves as its arguments; the script itself may read
    /// lines.
    pub fn exec_leashed_after(&self, script: &str, container: &str, argv: &[&str]) -> Command {
        self.exec_under(&format!("{script}{LEASH}"), container, &[], argv)
    }

    /// `docker run` of a program as root in a container that only shows data, is made for it and goes with it. It begins when a
    /// line comes by standard input, and is ended when that closes, as by [`Docker::exec_leashed`].
    pub fn run_leashed(&self, spec: ContainerSpec<'_>, argv: &[&str]) -> Command {
        let script = format!("read -r _ || exit 1\n{LEASH}");
        let spec = ContainerSpec {
            user: Some("0"),
            entrypoint: Some("sh"),
            argv: &[&["-c", &script, "sh"], argv].concat(),
            transient: true,
            ..spec
        };
        self.command(spec.args(&["run", "--interactive"]))
    }

    /// `docker exec` of a program that reads much from standard input.
    pub fn exec_wide(&self, container: &str, env: &[(&str, &str)], argv: &[&str]) -> Command {
        self.exec_under(WIDE_INPUT, container, env, argv)
    }

    /// `docker exec` of a shell script that gets a program and its arguments.
    fn exec_under(&self, script: &str, container: &str, env: &[(&str, &str)], argv: &[&str]) -> Command {
        let how = Exec {
            interactive: true,
            env,
            ..Exec::default()
        };
        self.exec(container, how, &[&["sh", "-c", script, "sh"], argv].concat())
    }

    /// The free bytes of the file system that holds `dir` in a container; `None` when it does not tell.
    pub fn free_space(&self, container: &str, dir: &str) -> Result<Option<u64>> {
        let df = self.exec(container, Exec::default(), &["df", "-Pk", "--", dir]);
        let output = self.answer("df", df, None)?;
        Ok(space::free(&output.text()).filter(|_| output.success))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::engine::{Data, Label};

    fn docker() -> Docker {
        Docker {
            program: PathBuf::from("/x/docker"),
            stall: Duration::from_secs(1),
            login: None,
            glance: None,
            volumes: Default::default(),
        }
    }

    fn args(command: &Command) -> Vec<String> {
        command
            .get_args()
            .map(|arg| arg.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn exec_ends_docker_options_before_the_container() {
        let how = Exec {
            interactive: true,
            env: &[("A", "b c")],
            user: Some("999"),
            ..Exec::default()
        };
        let command = docker().exec("name", how, &["psql", "-c", "select 1; --"]);
        assert_eq!(
            args(&command),
            [
                "exec",
                "-i",
                "-u",
                "999",
                "-e",
                "A=b c",
                "--",
                "name",
                "psql",
                "-c",
                "select 1; --"
            ]
        );
    }

    #[test]
    fn a_leash_passes_arguments_as_they_are() {
        let command = docker().exec_leashed("name", &[], &["pg_dump", "--dbname=a'b \"c\"; $(x)"]);
        let args = args(&command);
        assert_eq!(args[..6], ["exec", "-i", "--", "name", "sh", "-c"]);
        assert_eq!(args[7..], ["sh", "pg_dump", "--dbname=a'b \"c\"; $(x)"]);
    }

    #[test]
    fn a_leashed_container_goes_with_its_program() {
        let labels = [Label::Helper("me")];
        let spec = ContainerSpec {
            env: &[("A", "b")],
            ..ContainerSpec::new(&labels, "alpine", Data::Mounts(&[]))
        };
        let args = args(&docker().run_leashed(spec, &["tar", "-cf", "-"]));
        let text = args.join(" ");
        assert!(text.starts_with("run --interactive --pull never "), "{text}");
        assert!(text.contains(" --user 0 --env A=b --entrypoint sh --rm --log-driver none -- alpine -c read -r _ "));
        assert!(text.ends_with(" sh tar -cf -"), "{text}");
    }
}
