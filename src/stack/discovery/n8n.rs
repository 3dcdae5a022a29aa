//! Which containers are n8n's, and what each does, by its image, its environment and its command.

use std::path::Path;

use super::hosts::is_server;
use crate::engine::describe::Described;
use crate::store::Kind;

/// What one of n8n's containers does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// Serves the editor and starts workflows.
    Main,
    /// The same, unless another one surely does: a script of its own starts what it does not tell.
    Presumed,
    /// Takes calls of webhooks.
    Webhook,
    /// Runs what the others queue.
    Worker,
}

/// n8n's commands that go on until they are stopped.
const SERVERS: [(&str, Role); 3] = [
    ("start", Role::Main),
    ("webhook", Role::Webhook),
    ("worker", Role::Worker),
];
/// Programs that only start another one, and words of a shell before a command.
const WRAPPERS: [&str; 16] = [
    "exec",
    "tini",
    "dumb-init",
    "node",
    "nohup",
    "env",
    "npx",
    "--",
    "then",
    "do",
    "else",
    "if",
    "while",
    "until",
    "!",
    "time",
];
/// As those, as another user, whom an argument names.
const AS_USER: [&str; 6] = ["su-exec", "gosu", "s6-setuidgid", "setpriv", "runuser", "su"];
/// Options of those that take the next word.
const VALUED: [&str; 8] = ["-u", "-g", "-G", "-s", "--shell", "--reuid", "--regid", "--groups"];
const SHELLS: [&str; 4] = ["sh", "bash", "ash", "dash"];
/// Where the system's own programs are: a program elsewhere may be a start script.
const SYSTEM: [&str; 4] = ["/bin", "/sbin", "/usr/bin", "/usr/sbin"];
/// The start script of n8n's own image.
const START_SCRIPT: &str = "docker-entrypoint.sh";
/// The program of n8n's runners.
const LAUNCHER: &str = "task-runner-launcher";
/// What the environment of n8n is told by.
const VARIABLES: [&str; 4] = ["N8N_", "DB_POSTGRESDB_", "DB_SQLITE_", "DB_TYPE"];

/// What a container does as one of n8n's; none where it is not n8n's, or works once and ends, as an import does.
pub(super) fn role(container: &Described) -> Option<Role> {
    told(container).flatten()
}

/// What a container that a setting names is, where its command does not tell: n8n, if its image or variables are n8n's.
pub(super) fn role_of_named(container: &Described) -> Option<Role> {
    let is_other = [Kind::Postgres, Kind::Redis]
        .iter()
        .any(|kind| is_server(container, *kind))
        || words(container).any(|word| base(word) == LAUNCHER);
    let is_n8n = is_image(container) || has_variables(container);
    match told(container) {
        Some(role) => role,
        None => (is_n8n && !is_other).then_some(Role::Main),
    }
}

/// As [`role`]; `None` where nothing tells it.
fn told(container: &Described) -> Option<Option<Role>> {
    let is_image = is_image(container);
    if !is_image && !has_variables(container) {
        return None;
    }
    let words: Vec<&str> = words(container).collect();
    let (program, arguments) = run_behind_start_script(&words)?;
    // A script of one's own, unless it works once and ends.
    let own = || Some(Some(by_name(container))).filter(|_| is_image && goes_on(container));
    if is_shell(program) {
        return match script(arguments) {
            Some(script) => {
                by_script(script).or_else(|| own().filter(|_| commands(script).any(|words| runs_own(&words))))
            }
            None => own(),
        };
    }
    let starts_n8n = is_program(program) || (is_image && base(program) == START_SCRIPT);
    if let Some(role) = behind(program, arguments).filter(|_| !starts_n8n) {
        return Some(role);
    }
    // An image of one's own may bring a start script of any name.
    let may_start_n8n =
        is_image && container.command.iter().all(|word| !word.contains('/')) && program.ends_with(".sh");
    // The start script of the image is also PostgreSQL's and Redis's name for theirs.
    let is_official = base(program) == START_SCRIPT && words.first().is_some_and(|word| base(word) == "tini");
    let role = (starts_n8n || may_start_n8n || is_official).then(|| of_arguments(arguments));
    match role {
        None | Some(None) if is_own(program) && base(program) != START_SCRIPT => own().or(role),
        role => role,
    }
}

/// Whether a program may be a start script of one's own.
fn is_own(program: &str) -> bool {
    let is_of_system = SYSTEM
        .iter()
        .any(|dir| Path::new(program).parent() == Some(Path::new(dir)));
    let is_known = is_program(program) || base(program) == LAUNCHER;
    (program.contains('/') || program.ends_with(".sh")) && !is_of_system && !is_known
}

/// Whether a container starts such a script, which may do anything, and its command does not tell that n8n is in it.
pub(super) fn starts_own(container: &Described) -> bool {
    let words: Vec<&str> = words(container).collect();
    let is_n8n = |word: &str| is_program(word) || base(word) == START_SCRIPT;
    run_behind_start_script(&words).is_some_and(|(program, arguments)| match script(arguments) {
        Some(script) if is_shell(program) => by_script(script).is_none(),
        _ if is_shell(program) => {
            let mut files = arguments.iter().filter(|word| !word.starts_with('-'));
            !files.next().is_some_and(|file| is_n8n(file))
        }
        _ => is_own(program) && !is_n8n(program) && behind(program, arguments).is_none(),
    })
}

/// Whether a command runs such a script.
fn runs_own(words: &[&str]) -> bool {
    started(words).is_some_and(|(program, arguments)| {
        let is_reader = is_shell(program) || [".", "source"].contains(&program);
        is_own(program) || (is_reader && arguments.iter().any(|word| is_own(word)))
    })
}

/// What a script of one's own starts, which does not tell it: as its command names it, or else its service.
fn by_name(container: &Described) -> Role {
    let service = Some(container.label(super::SERVICE)).filter(|service| !service.is_empty());
    let named = |text: &str| {
        let mut names = text.split(|c: char| !c.is_ascii_alphanumeric());
        names.find_map(|name| SERVERS.iter().find(|(known, _)| *known == name && *known != "start"))
    };
    let by_command = words(container).find_map(named);
    let by_service = || named(service.unwrap_or(&container.name));
    by_command.or_else(by_service).map_or(Role::Presumed, |(_, role)| *role)
}

/// What n8n does that another program starts, which waits for something before: behind `--`, or named with its command.
fn behind(program: &str, arguments: &[&str]) -> Option<Option<Role>> {
    if ["echo", "printf"].contains(&base(program)) {
        return None;
    }
    if let Some(at) = arguments.iter().position(|word| *word == "--") {
        let rest = &arguments[at + 1..];
        let is_path = |word: &&&str| word.contains('/') && is_program(word) && !word.contains("bin/");
        return rest.first().filter(|word| !is_path(word)).and_then(|_| run_by(rest));
    }
    let serves = |words: &[&str]| is_program(words[0]) && SERVERS.iter().any(|(name, _)| *name == words[1]);
    let at = arguments.windows(2).position(serves)?;
    Some(of_arguments(&arguments[at + 1..]))
}

fn is_image(container: &Described) -> bool {
    is_n8n_image(&container.image) || container.label("org.opencontainers.image.title") == "n8n"
}

fn has_variables(container: &Described) -> bool {
    let mut names = container.env.keys();
    names.any(|name| VARIABLES.iter().any(|known| name.starts_with(known)))
}

fn words(container: &Described) -> impl Iterator<Item = &str> {
    let words = container.entry_point.iter().chain(&container.command);
    words.map(String::as_str)
}

/// Whether a container is one that is to run all along.
fn goes_on(container: &Described) -> bool {
    let policy = container.container.restart.as_str();
    !policy.is_empty() && policy != "no" && !policy.starts_with("on-failure")
}

/// Whether this is the name of an image of n8n: its last part, without tag and digest, is `n8n`.
pub fn is_n8n_image(image: &str) -> bool {
    let name = image.split('@').next().unwrap_or_default();
    let last = name.rsplit('/').next().unwrap_or_default();
    last.split(':').next() == Some("n8n")
}

/// The program of a command line, behind what only starts it and the options of that, with its arguments.
fn started<'a, 'b>(words: &'b [&'a str]) -> Option<(&'a str, &'b [&'a str])> {
    let passed = |word: &str| WRAPPERS.contains(&base(word)) || word.starts_with('-') || is_assignment(word);
    let at = words.iter().position(|word| !passed(word))?;
    let (program, rest) = (words[at], &words[at + 1..]);
    if !AS_USER.contains(&base(program)) {
        return Some((program, rest));
    }
    // `su` takes a script as a shell does.
    if script(rest).is_some_and(|script| script.contains(' ')) {
        return Some(("sh", rest));
    }
    match command_of_user(rest) {
        Some(at) => Some((rest[at], &rest[at + 1..])),
        None => Some((program, rest)),
    }
}

/// As [`started`]; behind a start script the shell or the n8n that it is given, since earlier ones, and those of other
/// images, run whatever program that is.
fn run_behind_start_script<'a, 'b>(words: &'b [&'a str]) -> Option<(&'a str, &'b [&'a str])> {
    let (program, arguments) = started(words)?;
    let given = started(arguments).filter(|(given, _)| is_shell(given) || is_program(given));
    given
        .filter(|_| base(program) == START_SCRIPT)
        .or(Some((program, arguments)))
}

/// Where the program stands that runs as another user, if it is n8n or a shell: behind the options, and the user where
/// that is a word of its own. Any later word may be the name of a database or a directory.
fn command_of_user(words: &[&str]) -> Option<usize> {
    let starts = |at: &usize| {
        words
            .get(*at)
            .is_some_and(|word| is_program(word) || base(word) == START_SCRIPT || is_shell(word))
    };
    if let Some(option) = words.iter().position(|word| *word == "-c") {
        return Some(option + 1).filter(starts);
    }
    let is_value = |at: usize| at > 0 && VALUED.contains(&words[at - 1]);
    let is_user_by_number = |word: &str| word.contains(':') || word.bytes().all(|byte| byte.is_ascii_digit());
    let plain = words
        .iter()
        .enumerate()
        .filter(|(at, word)| !word.starts_with('-') && !is_value(*at) && !is_user_by_number(word));
    plain.map(|(at, _)| at).take(2).find(starts)
}

/// The script that a shell's arguments hold.
fn script<'a>(arguments: &[&'a str]) -> Option<&'a str> {
    let is_option = |word: &&str| word.starts_with('-') && !word.starts_with("--") && word.ends_with('c');
    let at = arguments.iter().position(is_option)?;
    arguments.get(at + 1).copied()
}

/// What n8n does with these arguments, if it goes on doing so.
fn of_arguments(arguments: &[&str]) -> Option<Role> {
    // The start script takes `n8n worker` and `worker` alike.
    let mut words = arguments
        .iter()
        .filter(|word| !word.starts_with('-') && **word != "n8n");
    match words.next() {
        None => Some(Role::Main),
        Some(first) => SERVERS.iter().find(|(name, _)| name == first).map(|(_, role)| *role),
    }
}

/// What a script does, where n8n is started in it.
fn by_script(script: &str) -> Option<Option<Role>> {
    let runs: Vec<Option<Role>> = commands(script).filter_map(|words| run_by(&words)).collect();
    let serves = runs.iter().find(|role| role.is_some());
    serves.or(runs.first()).copied()
}

/// What a command of a script does, where it is one of n8n.
fn run_by(words: &[&str]) -> Option<Option<Role>> {
    let (program, arguments) = started(words)?;
    match () {
        () if is_program(program) || base(program) == START_SCRIPT => Some(of_arguments(arguments)),
        () if is_shell(program) => script(arguments).and_then(by_script),
        () => behind(program, arguments),
    }
}

/// The commands of a shell's script, as words.
fn commands(script: &str) -> impl Iterator<Item = Vec<&str>> {
    script.split([';', '&', '|', '(', ')', '{', '}', '\n']).map(|command| {
        command
            .split_whitespace()
            .map(|word| word.trim_matches(['"', '\'', '\\']))
            .collect()
    })
}

/// Whether a word is n8n's program, of whatever version for npx.
fn is_program(word: &str) -> bool {
    base(word).split('@').next() == Some("n8n")
}

fn is_shell(word: &str) -> bool {
    SHELLS.contains(&base(word))
}

fn base(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=')
        .is_some_and(|(name, _)| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::describe::tests::described;

    fn of(image: &str, env: &str, entry_point: &str, command: &str) -> Option<Role> {
        role(&described(&format!(
            r#"{{"Id": "1", "Name": "/x", "Config": {{"Image": "{image}", "Env": {env}, "Entrypoint": {entry_point}, "Cmd": {command}}}}}"#
        )))
    }

    const OFFICIAL: &str = r#"["tini", "--", "/docker-entrypoint.sh"]"#;

    #[test]
    fn the_servers_of_n8n_are_known_by_image_and_command() {
        for (command, role) in [
            ("null", Some(Role::Main)),
            (r#"["start"]"#, Some(Role::Main)),
            (r#"["worker", "--concurrency=5"]"#, Some(Role::Worker)),
            (r#"["n8n", "worker"]"#, Some(Role::Worker)),
            (r#"["webhook"]"#, Some(Role::Webhook)),
            (r#"["import:workflow", "--input=/x"]"#, None),
            (r#"["execute", "--id", "1"]"#, None),
        ] {
            assert_eq!(
                of("docker.n8n.io/n8nio/n8n:2.1@sha256:ab", "[]", OFFICIAL, command),
                role,
                "{command}"
            );
        }
    }

    #[test]
    fn a_shell_starts_what_its_script_says() {
        let shell = |script: &str| of("n8nio/n8n", "[]", r#"["/bin/sh"]"#, &format!(r#"["-c", "{script}"]"#));
        assert_eq!(
            shell("n8n import:workflow --separate --input=/d && n8n start"),
            Some(Role::Main)
        );
        assert_eq!(shell("sleep 5; exec n8n worker"), Some(Role::Worker));
        assert_eq!(shell("A=1 n8n"), Some(Role::Main));
        let by = |entry_point: &str, command: &str| of("n8nio/n8n:0.200.0", "[]", entry_point, command);
        assert_eq!(by(r#"["bash", "-lc", "n8n start"]"#, "null"), Some(Role::Main));
        assert_eq!(
            by(OFFICIAL, r#"["/bin/sh", "-c", "sleep 5; n8n worker"]"#),
            Some(Role::Worker)
        );
        // A script of one's own tells nothing, but that it goes on.
        let script = |policy: &str| {
            role(&described(&format!(
                r#"{{"Id": "1", "Name": "/x", "HostConfig": {{"RestartPolicy": {{"Name": "{policy}"}}}},
                    "Config": {{"Image": "n8nio/n8n", "Entrypoint": ["/bin/sh", "/custom/start.sh"]}}}}"#
            )))
        };
        assert_eq!(script("unless-stopped"), Some(Role::Presumed));
        assert_eq!((script("no"), script("on-failure")), (None, None));
        assert_eq!(shell("n8n import:credentials --input=/d"), None);
        assert_eq!(shell("chown -R 1000:1000 /home/node/.n8n"), None);
        assert_eq!(shell("mkdir -p /data/n8n"), None);
    }

    #[test]
    fn n8n_is_known_behind_what_waits_and_behind_a_script_of_ones_own() {
        let of = |entry_point: &str, command: &str, service: &str| {
            role(&described(&format!(
                r#"{{"Id": "1", "Name": "/x-1", "HostConfig": {{"RestartPolicy": {{"Name": "always"}}}},
                    "Config": {{"Image": "n8nio/n8n", "Entrypoint": {entry_point}, "Cmd": {command},
                                "Labels": {{"com.docker.compose.service": "{service}"}}}}}}"#
            )))
        };
        let (main, presumed) = (Some(Role::Main), Some(Role::Presumed));
        let (worker, webhook) = (Some(Role::Worker), Some(Role::Webhook));
        for (entry_point, command, role) in [
            (r#"["/wait-for-it.sh"]"#, r#"["db:5432", "--", "n8n", "start"]"#, main),
            (
                r#"["/wait-for-it.sh"]"#,
                r#"["db:5432", "--strict", "--", "n8n"]"#,
                main,
            ),
            (
                r#"["./wait-for"]"#,
                r#"["db:5432", "--", "sh", "-c", "n8n worker"]"#,
                worker,
            ),
            (r#"["dockerize", "-wait", "tcp://db"]"#, r#"["n8n", "worker"]"#, worker),
            (r#"["tini", "--", "/custom/entrypoint"]"#, "null", presumed),
            (r#"["tini", "--", "/custom/entrypoint"]"#, r#"["worker"]"#, worker),
            (r#"["tini", "--", "sh", "/start.sh"]"#, r#"["worker"]"#, worker),
            (r#"["/bin/sh", "/start-webhook.sh"]"#, "null", webhook),
            (r#"["/start.sh"]"#, r#"["db:5432"]"#, presumed),
            (OFFICIAL, r#"["sh", "-c", "./wait-for db && n8n start"]"#, main),
            (OFFICIAL, r#"["import:workflow", "--input=/x"]"#, None),
            (r#"["/usr/sbin/crond", "-f"]"#, "null", None),
            (r#"["chown", "--", "/data/n8n"]"#, "null", None),
            (r#"["/usr/local/bin/task-runner-launcher"]"#, "null", None),
        ] {
            assert_eq!(of(entry_point, command, "n8n"), role, "{entry_point} {command}");
        }
        for (script, role) in [
            ("./wait-for && n8n start", main),
            ("./wait-for db:5432 -- n8n worker", worker),
            ("./wait-for db:5432 -- /docker-entrypoint.sh", main),
            ("if [ -f /x ]; then exec n8n webhook; fi", webhook),
            ("if ! n8n list:workflow; then sleep 1; fi; /usr/local/bin/n8n", main),
            ("/scripts/start.sh", presumed),
            ("/scripts/start.sh worker", worker),
            ("sleep 5 && bash /scripts/start-webhook.sh", webhook),
            (". /scripts/start.sh", presumed),
            ("cp /a/x.sh /b/x.sh", None),
            ("echo n8n start; n8n import:workflow --input=/x", None),
            ("while :; do n8n export:workflow --all; sleep 60; done", None),
            ("crond -f", None),
            ("tail -f /dev/null", None),
        ] {
            let command = format!(r#"["{script}"]"#);
            assert_eq!(of(r#"["sh", "-c"]"#, &command, "n8n"), role, "{script}");
        }
        // Where nothing else tells it, the service's name does.
        let by_service = |service: &str| of(r#"["sh", "/start.sh"]"#, "null", service);
        assert_eq!(
            [by_service("n8n-worker"), by_service("n8n"), by_service("webhook")],
            [worker, presumed, webhook]
        );
    }

    #[test]
    fn n8n_is_known_behind_what_changes_the_user_and_in_other_images() {
        let shell = |script: &str| of("n8nio/n8n", "[]", r#"["/bin/sh", "-c"]"#, &format!(r#"["{script}"]"#));
        for (script, role) in [
            (
                "chown -R node:node /home/node/.n8n && su node -c 'n8n start'",
                Some(Role::Main),
            ),
            ("su -s /bin/sh node -c 'n8n worker'", Some(Role::Worker)),
            (r#"su - node -c \"cd /x && exec n8n\""#, Some(Role::Main)),
            ("chown -R node /d && exec su-exec node n8n", Some(Role::Main)),
            ("gosu 1000:1000 n8n worker", Some(Role::Worker)),
            ("s6-setuidgid node n8n webhook", Some(Role::Webhook)),
            (
                "setpriv --reuid 1000 --clear-groups /docker-entrypoint.sh",
                Some(Role::Main),
            ),
            ("runuser -u node -- n8n start", Some(Role::Main)),
            ("npx --yes n8n@1.80.0 start", Some(Role::Main)),
            ("su node -c 'n8n import:workflow --input=/d'", None),
            ("su-exec node n8n export:workflow --all", None),
            ("su node -c 'ls /home/node'", None),
            (
                "setpriv --reuid node --regid node --clear-groups n8n start",
                Some(Role::Main),
            ),
            ("gosu root chown -R node /data/n8n", None),
            ("su postgres -c 'createdb n8n'", None),
            ("su postgres -c 'pg_dump n8n | gzip'", None),
            ("su node -c 'ls /data/n8n'", None),
            ("gosu n8n chown -R 1000 /data", None),
            ("gosu n8n n8n worker", Some(Role::Worker)),
        ] {
            assert_eq!(shell(script), role, "{script}");
        }
        let env = r#"["N8N_PORT=5678"]"#;
        let node = |command: &str| of("stack-automation", env, r#"["docker-entrypoint.sh"]"#, command);
        assert_eq!(node(r#"["n8n", "start"]"#), Some(Role::Main));
        assert_eq!(node(r#"["npx", "n8n", "worker"]"#), Some(Role::Worker));
        assert_eq!(node(r#"["su", "node", "-c", "n8n start"]"#), Some(Role::Main));
        assert_eq!(node(r#"["n8n", "import:workflow"]"#), None);
        assert_eq!(
            of("n8nio/n8n", "[]", r#"["su-exec", "node", "n8n"]"#, "null"),
            Some(Role::Main)
        );
    }

    #[test]
    fn a_named_container_is_n8n_unless_it_is_known_to_be_something_else() {
        let named = |image: &str, command: &str| {
            role_of_named(&described(&format!(
                r#"{{"Id": "1", "Name": "/x",
                    "Config": {{"Image": "{image}", "Env": ["N8N_PORT=5678"], "Cmd": {command}}}}}"#
            )))
        };
        assert_eq!(named("stack-automation", r#"["/app/run"]"#), Some(Role::Main));
        assert_eq!(named("stack-automation", r#"["n8n", "worker"]"#), Some(Role::Worker));
        assert_eq!(named("stack-automation", r#"["n8n", "import:workflow"]"#), None);
        assert_eq!(named("postgres:16", r#"["postgres"]"#), None);
        assert_eq!(
            named("n8nio/runners", r#"["/usr/local/bin/task-runner-launcher"]"#),
            None
        );
    }

    #[test]
    fn other_containers_are_not_taken_for_n8n() {
        let env = r#"["DB_TYPE=postgresdb", "DB_POSTGRESDB_HOST=db", "N8N_ENCRYPTION_KEY=k"]"#;
        // A database that has n8n's environment by env_file, the runners, a helper that mounts the home, a stand-in.
        assert_eq!(
            of("postgres:16", env, r#"["docker-entrypoint.sh"]"#, r#"["postgres"]"#),
            None
        );
        let launcher = r#"["tini", "--", "/usr/local/bin/task-runner-launcher"]"#;
        assert_eq!(of("n8nio/runners:2", env, launcher, r#"["javascript"]"#), None);
        assert_eq!(of("n8nio/n8n", "[]", r#"["chown"]"#, r#"["-R", "1000", "/d"]"#), None);
        assert_eq!(of("busybox", "[]", "null", r#"["sleep", "1"]"#), None);
        assert_eq!(of("busybox", env, "null", r#"["sleep", "1"]"#), None);
        assert!(!is_n8n_image("me/n8n-tools:1") && !is_n8n_image("n8n/other") && is_n8n_image("n8n"));
    }

    #[test]
    fn an_image_of_ones_own_is_known_by_its_variables() {
        let env = r#"["N8N_PORT=5678"]"#;
        assert_eq!(of("stack-automation", env, OFFICIAL, "null"), Some(Role::Main));
        assert_eq!(
            of("stack-automation", env, "null", r#"["n8n", "worker"]"#),
            Some(Role::Worker)
        );
        assert_eq!(of("me/n8n:1", env, r#"["/start.sh"]"#, "null"), Some(Role::Main));
        assert_eq!(of("stack-automation", env, r#"["/start.sh"]"#, "null"), None);
    }
}
