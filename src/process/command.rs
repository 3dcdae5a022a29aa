//! The command of a child: its environment, where its program is, and how it is shown.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Settings that no child inherits: what is secret goes to the one process that needs it, by a pipe.
const SECRETS: [&str; 6] = [
    "REDIS_PASSWORD",
    "REDISCLI_AUTH",
    "BACKUP_GPG_PASSPHRASE",
    "N8N_ENCRYPTION_KEY",
    "POSTGRES_PASSWORD",
    "BACKUP_PING_URL",
];

/// How the names begin under which rclone and its kin find the access to a cloud.
const CLOUD_PREFIXES: [&str; 6] = ["RCLONE_", "AWS_", "AZURE_", "GOOGLE_", "OS_", "OCI_"];
/// How names of secrets end.
const SECRET_SUFFIXES: [&str; 6] = ["_PASSWORD", "_PASSPHRASE", "_PASS", "_SECRET", "_TOKEN", "_KEY"];

/// A command for `program` in the C locale, in a process group of its own (a terminal's Ctrl-C ends us, and our end
/// ends the children in good order), without the secrets that our own environment may hold.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    command_keeping(program, |_| false)
}

/// As [`command`], but `program` gets those variables whose name `keeps` takes, too. [`SECRETS`] it never gets.
pub fn command_keeping(program: impl AsRef<OsStr>, keeps: impl Fn(&str) -> bool) -> Command {
    let mut command = command_as_called(program);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| is_secret(name) && !keeps(name)) {
            command.env_remove(name);
        }
    }
    for name in SECRETS {
        command.env_remove(name);
    }
    command
}

/// As [`command`], with all of our own environment: for what is called as its user would call it in the same shell.
pub fn command_as_called(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").process_group(0);
    command
}

/// Whether a variable of this name may hold something that no other program needs to see.
fn is_secret(name: &str) -> bool {
    is_cloud(name) || SECRET_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

/// Whether a variable of this name is one of those by which rclone reaches a cloud.
pub fn is_cloud(name: &str) -> bool {
    CLOUD_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Where programs are on every host.
const USUAL_PLACES: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/bin"];

/// Finds `name` (or a path to a program) on `path`, else in the directories that every host has.
pub fn find(name: &str, path: Option<&OsString>) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|file| is_executable(file));
    }
    path.and_then(|path| find_in(name, env::split_paths(path)))
        .or_else(|| find_in(name, USUAL_PLACES.map(PathBuf::from)))
}

/// Finds `name` on `path`; only where that is not set, in the directories that every host has. For a program that is
/// one of several, so that `path` decides.
pub fn find_on_path(name: &str, path: Option<&OsString>) -> Option<PathBuf> {
    match path {
        Some(path) => find_in(name, env::split_paths(path)),
        None => find_in(name, USUAL_PLACES.map(PathBuf::from)),
    }
}

fn find_in(name: &str, dirs: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    dirs.into_iter()
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|file| is_executable(file))
}

/// Whether `file` can be run by somebody.
pub fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Program and arguments as a shell would take them.
pub(super) fn shown(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let quoted = words.map(|word| shell_quote(&word.to_string_lossy()));
    quoted.collect::<Vec<_>>().join(" ")
}

/// A word as a shell takes it.
pub fn shell_quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::process::output;
    use crate::testing::{sh, STALL};

    #[test]
    fn a_command_is_shown_as_a_shell_takes_it() {
        let mut command = command("/bin/echo");
        command.args(["--x=1", "a b", "", "it's $(x)"]);
        assert_eq!(shown(&command), r"/bin/echo --x=1 'a b' '' 'it'\''s $(x)'");
    }

    #[test]
    fn secrets_are_not_inherited() {
        let removed: Vec<_> = command("true")
            .get_envs()
            .filter(|(_, value)| value.is_none())
            .map(|(name, _)| name.to_owned())
            .collect();
        assert!(SECRETS.iter().all(|name| removed.iter().any(|gone| gone == name)));
        for name in [
            "RCLONE_CONFIG_PASS",
            "AWS_PROFILE",
            "SMTP_PASSWORD",
            "GH_TOKEN",
            "MY_SECRET",
            "API_KEY",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in [
            "PATH",
            "HOME",
            "DOCKER_HOST",
            "SSH_AUTH_SOCK",
            "GNUPGHOME",
            "KEYBOARD",
            "TOKENS",
        ] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn what_is_called_as_by_its_user_has_the_whole_environment() {
        let command = command_as_called("docker");
        assert!(command.get_envs().all(|(_, value)| value.is_some()));
    }

    #[test]
    fn a_program_keeps_what_is_its_own() {
        // What cargo sets for a test stands for a secret here: nothing may change the environment of a running process.
        let gone = |command: Command| -> Vec<OsString> {
            let unset = command.get_envs().filter(|(_, value)| value.is_none());
            unset.map(|(name, _)| name.to_owned()).collect()
        };
        let script = r#"RCLONE_CONFIG_PASS=x AWS_PROFILE=y HOOK_TOKEN=z exec "$@""#;
        if env::var_os("HOOK_TOKEN").is_none() {
            let test = "process::command::tests::a_program_keeps_what_is_its_own";
            let mut again = sh(script);
            again.arg("sh").arg(env::current_exe().unwrap()).args(["--exact", test]);
            let output = output("test", again, None, STALL).unwrap();
            assert!(output.success && output.text().contains("1 passed"), "{output:?}");
            return;
        }
        for name in ["RCLONE_CONFIG_PASS", "AWS_PROFILE", "HOOK_TOKEN"] {
            assert!(gone(command("true")).iter().any(|one| one == name), "{name}");
        }
        let cloud = gone(command_keeping("rclone", is_cloud));
        assert!(!cloud
            .iter()
            .any(|one| one == "RCLONE_CONFIG_PASS" || one == "AWS_PROFILE"));
        assert!(cloud.iter().any(|one| one == "HOOK_TOKEN"));
        assert!(gone(command_keeping("hook", |_| true))
            .iter()
            .all(|one| one != "HOOK_TOKEN"));
        assert!(gone(command_keeping("hook", |_| true))
            .iter()
            .any(|one| one == "POSTGRES_PASSWORD"));
    }
}
