//! psql in the container of a server.

use std::io;
use std::process::Command;
use std::sync::atomic::Ordering;

use anyhow::{anyhow, Context as _, Result};

use super::messages::{self, Messages};
use super::{logged_in, scratch, sql};
use crate::app::App;
use crate::engine::{Docker, Exec};
use crate::process::{self, Chain, Input, Observer};

/// Scripts are UTF-8; a dump says for itself what it is.
const UTF8: [(&str, &str); 1] = [("PGCLIENTENCODING", "UTF8")];

/// A server in its container, for scripts of SQL.
pub(super) struct Psql<'a> {
    pub(super) docker: &'a Docker,
    pub(super) app: &'a App,
    pub(super) container: &'a str,
    pub(super) user: &'a str,
    /// For the server, as its `options`.
    pub(super) options: &'static str,
}

impl<'a> Psql<'a> {
    /// The server of the stack.
    pub(super) fn live(app: &'a App, docker: &'a Docker) -> Self {
        Self {
            docker,
            app,
            container: &app.config.postgres_container,
            user: &app.config.postgres_user,
            options: "",
        }
    }

    /// For a database that was loaded: a trigger on login, which PostgreSQL has since 17, would change what is compared.
    /// Only a superuser may turn them off.
    pub(super) fn of_loaded(mut self, version: u32, superuser: bool) -> Self {
        if superuser && version >= 170_000 {
            self.options = "-c event_triggers=off";
        }
        self
    }

    /// Runs a script in `database` and gives its output. `task` marks the session.
    pub(super) fn run(&self, database: &str, task: &str, script: String) -> Result<String> {
        self.run_in(self.app.chain(), database, task, script)
    }

    /// Runs scripts in one session, which is quicker than a session for each, and gives the output of each.
    pub(super) fn run_each<const N: usize>(
        &self,
        database: &str,
        task: &str,
        scripts: [String; N],
    ) -> Result<[String; N]> {
        let output = self.run(database, task, scripts.join(sql::SEPARATE))?;
        sql::separated(&output)
    }

    /// As [`Psql::run`], for what may take the server long: no stall is a stall while the session works.
    ///
    /// # Errors
    /// As [`Psql::run`].
    pub(super) fn run_long(&self, database: &str, task: &str, script: String) -> Result<String> {
        let chain = self.app.chain();
        chain.pulse(self.works(database, task)?);
        self.run_in(chain, database, task, script)
    }

    /// Asks the server, on a connection of its own to `database`, whether the sessions of `task` work.
    ///
    /// # Errors
    /// None that a valid setting could cause.
    pub(super) fn works(&self, database: &str, task: &str) -> Result<impl Fn() -> bool + Send + 'static> {
        let script = sql::works(&sql::application_name(task, &self.app.config.postgres_db))?;
        Ok(self.asks(database, script))
    }

    /// Asks, on a connection of its own to `database`, a question that is answered by `t` or `f`.
    pub(super) fn asks(&self, database: &str, script: String) -> impl Fn() -> bool + Send + 'static {
        let (docker, app) = (self.docker.clone(), self.app.clone());
        let (container, user, database) = (self.container.to_owned(), self.user.to_owned(), database.to_owned());
        let options = self.options;
        move || {
            let psql = Psql {
                docker: &docker,
                app: &app,
                container: &container,
                user: &user,
                options,
            };
            psql.run(&database, "pulse", script.clone())
                .is_ok_and(|output| output.trim() == "t")
        }
    }

    pub(super) fn run_in(&self, chain: Chain, database: &str, task: &str, script: String) -> Result<String> {
        let command = self.command(database, task)?;
        let mut output = process::output_of(chain, "psql", command, Some(script.clone().into_bytes()))?;
        for _ in 0..OTHER_LOGINS {
            if output.success || !self.is_live() || !turns(self.app, &output.stderr) {
                break;
            }
            let command = self.command(database, task)?;
            output = process::output_of(self.app.chain(), "psql", command, Some(script.clone().into_bytes()))?;
        }
        if !output.success {
            let code = output
                .code
                .map_or_else(|| "no exit code".to_owned(), |code| format!("exit code {code}"));
            let text = match output.code {
                Some(messages::SCRIPT_FAILED) => {
                    let mut messages = Messages::default();
                    output.stderr_lines().for_each(|line| messages.take(line));
                    messages.text()
                }
                // The engine's client says why, or psql that there is no connection.
                _ => output.stderr,
            };
            return Err(anyhow!("psql: {text} ({code})"));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a script and gives its output, however much it is, to `observer` as it comes. [`Psql::run`] has found out before
    /// how the server lets us in.
    pub(super) fn pass<O: Observer>(&self, database: &str, task: &str, script: String, observer: O) -> Result<O> {
        let mut chain = self.app.chain();
        let (stdin, stdout) = chain.spawn("psql", self.command(database, task)?, Input::Piped)?;
        if let Some(stdin) = stdin {
            chain.pump("writing to psql", io::Cursor::new(script.into_bytes()), stdin, ());
        }
        let seen = chain.pump("reading from psql", stdout, io::sink(), observer);
        seen.get(&chain.finish()?)
    }

    pub(super) fn is_live(&self) -> bool {
        self.container == self.app.config.postgres_container
    }

    /// Whether it is asked as the role that backs up and restores.
    fn is_ours(&self) -> bool {
        self.is_live() && self.user == self.app.config.postgres_user
    }

    fn docker(&self) -> Docker {
        match self.is_ours() {
            true => self.app.logged_in(self.docker.clone()),
            false => self.docker.clone(),
        }
    }

    /// Where a client in the container finds `database`, and as whom.
    pub(super) fn target(&self, database: &str, application: &str) -> Result<String> {
        let port = match self.is_live() {
            true => self.app.config.postgres_port,
            false => Some(scratch::PORT),
        };
        let user = match self.is_ours() {
            true => self.app.postgres_login().0,
            false => self.user,
        };
        let mut target = sql::conninfo(user, database, port, application)?;
        if !self.options.is_empty() {
            target.push_str(&format!(" options='{}'", self.options));
        }
        Ok(
            match self.is_live() && self.app.postgres_by_tcp.load(Ordering::Relaxed) {
                true => format!("{target} host=127.0.0.1"),
                false => target,
            },
        )
    }

    /// psql on `database`, with a script on its standard input.
    pub(super) fn command(&self, database: &str, task: &str) -> Result<Command> {
        let how = Exec {
            interactive: true,
            env: &UTF8,
            ..Exec::default()
        };
        self.psql(database, task, |argv| self.docker().exec(self.container, how, argv))
    }

    /// psql on `database`, with a dump on its standard input. Its messages come with its output, for [`messages`].
    pub(super) fn loader(&self, database: &str, task: &str) -> Result<Command> {
        self.psql(database, task, |argv| {
            let merged = [&["sh", "-c", "exec \"$@\" 2>&1", "sh"], argv].concat();
            self.docker().exec_wide(self.container, &UTF8, &merged)
        })
    }

    pub(super) fn psql(&self, database: &str, task: &str, exec: impl FnOnce(&[&str]) -> Command) -> Result<Command> {
        let application = sql::application_name(task, &self.app.config.postgres_db);
        let target = self.target(database, &application)?;
        let mut argv = vec!["psql"];
        argv.extend(messages::FLAGS);
        argv.extend(sql::PSQL_FLAGS);
        argv.push(&target);
        Ok(exec(&logged_in(&argv)))
    }

    /// Runs `scripts` in the first database of `candidates` that lets us in, and gives that database and the outputs.
    pub(super) fn run_in_reachable<const N: usize>(
        &self,
        candidates: &[&'static str],
        scripts: [String; N],
    ) -> Result<(&'static str, [String; N])> {
        let mut reason = None;
        for database in candidates.iter().copied() {
            match self.run_each(database, "restore", scripts.clone()) {
                Ok(output) => return Ok((database, output)),
                Err(error) => reason = Some(error),
            }
        }
        Err(reason.unwrap_or_else(|| anyhow!("no database to connect to"))).context("Cannot connect to PostgreSQL")
    }
}

/// In how many other ways the live server is asked when it does not let us in.
pub(super) const OTHER_LOGINS: usize = 2;

/// Whether the live server is to be asked once more, in another way, after a failed login.
pub(super) fn turns(app: &App, failure: &str) -> bool {
    turns_to_n8n(app, failure) || turns_to_tcp(app, failure)
}

/// Whether the server lacks the superuser that its container names, as where `POSTGRES_USER` was changed after its first
/// start. From then on it is asked as the role that n8n logs in as.
fn turns_to_n8n(app: &App, failure: &str) -> bool {
    let lacks = format!("FATAL:  role \"{}\" does not exist", app.config.postgres_user);
    let is_lacking = app.config.found.second_login && failure.contains(&lacks);
    app.postgres_as_n8n.fetch_or(is_lacking, Ordering::Relaxed);
    is_lacking
}

/// The warning of a server that is asked as the role that n8n logs in as.
pub(super) fn warning(app: &App) -> Option<String> {
    let (user, _) = app.postgres_login();
    let named = &app.config.postgres_user;
    (user != named).then(|| {
        format!(
            "The server in {} has no role {named}, which its container names, so n8n's role {user} is taken: set \
             BACKUP_POSTGRES_USER in .env to the server's superuser",
            app.config.postgres_container
        )
    })
}

/// Whether a login failed because the socket of the live server lets a role in by the name of the operating system's user
/// alone, or not at all. From then on that server is asked by TCP, as n8n does.
fn turns_to_tcp(app: &App, failure: &str) -> bool {
    const REFUSED: [&str; 2] = [
        "Peer authentication failed",
        "no pg_hba.conf entry for host \"[local]\"",
    ];
    let is_refused = REFUSED.iter().any(|text| failure.contains(text));
    // Another thread may have found it out first.
    app.postgres_by_tcp.fetch_or(is_refused, Ordering::Relaxed);
    is_refused
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::config::{Config, Secret};
    use crate::testing::{executable, TempDir};

    #[test]
    fn a_superuser_that_the_server_lacks_gives_way_to_n8ns_role() {
        let dir = TempDir::new();
        let app = |second: Option<&str>| {
            let mut config = Config::of_text(dir.path(), Path::new(".env"), b"POSTGRES_USER=renamed\n").unwrap();
            config.found.second_login = second.is_some();
            config.found.login = second.unwrap_or_default().to_owned();
            config.found.login_password = second.map(|_| Secret::new("p"));
            App::new(config)
        };
        let lacks = |role: &str| format!("psql: error: connection failed: FATAL:  role \"{role}\" does not exist");
        let with = app(Some("n8n"));
        assert!(!turns(&with, &lacks("other")) && !turns(&with, "FATAL:  database \"renamed\" does not exist"));
        assert_eq!((with.postgres_login().0, warning(&with)), ("renamed", None));
        assert!(turns(&with, &lacks("renamed")));
        assert_eq!(with.postgres_login().0, "n8n");
        assert_eq!(with.postgres_login().1.map(|password| password.reveal()), Some("p"));
        assert!(warning(&with).unwrap().contains("BACKUP_POSTGRES_USER"));
        // There is no third one.
        assert!(!turns(&with, &lacks("n8n")));
        // A role that was set is the one that is wanted.
        assert!(!turns(&app(None), &lacks("renamed")));
    }

    #[test]
    fn triggers_on_login_stay_off_for_a_superuser_on_a_server_that_has_them() {
        let dir = TempDir::new();
        let program = dir.path().join("docker");
        executable(&program, "");
        let docker = Docker::locate(Some(dir.path().into()), Duration::from_secs(1)).unwrap();
        let app = App::new(Config::without_env_file(dir.path()).unwrap());
        for (version, superuser, off) in [(160_009, true, false), (170_000, true, true), (180_001, false, false)] {
            let psql = Psql::live(&app, &docker).of_loaded(version, superuser);
            let target = psql.target("n8n", "t").unwrap();
            assert_eq!(target.ends_with(" options='-c event_triggers=off'"), off, "{target}");
        }
        let target = Psql::live(&app, &docker).target("n8n", "t").unwrap();
        assert!(!target.contains("options"), "{target}");
    }
}
