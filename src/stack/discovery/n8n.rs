//! Which containers are n8n's, and what each does, by its image, its environment and its command.

use crate::engine::describe::Described;

/// What one of n8n's containers does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// Serves the editor and starts workflows.
    Main,
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
/// Programs that only start another one.
const WRAPPERS: [&str; 7] = ["exec", "tini", "dumb-init", "node", "nohup", "env", "--"];
const SHELLS: [&str; 4] = ["sh", "bash", "ash", "dash"];
/// The start script of n8n's own image.
const START_SCRIPT: &str = "docker-entrypoint.sh";
/// What the environment of n8n is told by.
const VARIABLES: [&str; 4] = ["N8N_", "DB_POSTGRESDB_", "DB_SQLITE_", "DB_TYPE"];

/// What a container does as one of n8n's; none where it is not n8n's, or works once and ends, as an import does.
pub(super) fn role(container: &Described) -> Option<Role> {
    let is_image = is_n8n_image(&container.image) || container.label("org.opencontainers.image.title") == "n8n";
    let is_told = container
        .env
        .keys()
        .any(|name| VARIABLES.iter().any(|known| name.starts_with(known)));
    if !is_image && !is_told {
        return None;
    }
    let words: Vec<&str> = container
        .entry_point
        .iter()
        .chain(&container.command)
        .map(String::as_str)
        .collect();
    let (mut program, mut arguments) = started(&words)?;
    // Earlier start scripts run whatever program they are given.
    if let (START_SCRIPT, [first, rest @ ..]) = (base(program), arguments) {
        if SHELLS.contains(&base(first)) {
            (program, arguments) = (first, rest);
        }
    }
    if SHELLS.contains(&base(program)) {
        let is_script = |word: &&str| word.starts_with('-') && word.ends_with('c');
        return match arguments.iter().position(is_script) {
            Some(at) => commands(arguments.get(at + 1)?).find_map(|words| run_by(&words)),
            // A script of one's own, unless it works once and ends.
            None => (is_image && goes_on(container)).then_some(Role::Main),
        };
    }
    let starts_n8n = base(program) == "n8n" || (is_image && base(program) == START_SCRIPT);
    // An image of one's own may bring a start script of any name.
    let may_start_n8n =
        is_image && container.command.iter().all(|word| !word.contains('/')) && program.ends_with(".sh");
    // The start script of the image is also PostgreSQL's and Redis's name for theirs.
    let is_official = base(program) == START_SCRIPT && words.first().is_some_and(|word| base(word) == "tini");
    if starts_n8n || may_start_n8n || is_official {
        return of_arguments(arguments);
    }
    None
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
    Some((words[at], &words[at + 1..]))
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

/// What the command does, where it is one of n8n.
fn run_by(words: &[&str]) -> Option<Role> {
    let (program, arguments) = started(words)?;
    match base(program) {
        "n8n" | START_SCRIPT => of_arguments(arguments),
        _ => None,
    }
}

/// The commands of a shell's script, as words.
fn commands(script: &str) -> impl Iterator<Item = Vec<&str>> {
    script.split([';', '&', '|', '(', ')', '{', '}', '\n']).map(|command| {
        command
            .split_whitespace()
            .map(|word| word.trim_matches(['"', '\'']))
            .collect()
    })
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
        assert_eq!(script("unless-stopped"), Some(Role::Main));
        assert_eq!((script("no"), script("on-failure")), (None, None));
        assert_eq!(shell("n8n import:credentials --input=/d"), None);
        assert_eq!(shell("chown -R 1000:1000 /home/node/.n8n"), None);
        assert_eq!(shell("mkdir -p /data/n8n"), None);
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
