//! The files that a stack is deployed from: its compose files, and what they name in the project directory.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::{is_of, Stack, COMPOSE_FILES, SERVICE};
use crate::config::Composed;
use crate::engine::describe::{Described, MountPoint};

/// The label with Compose's files, comma-separated.
const FILES: &str = "com.docker.compose.project.config_files";
/// The label with the files that Compose takes variables from.
const ENV_FILES: &str = "com.docker.compose.project.environment_file";
/// What is no part of a deployment, though a compose file may name it.
const OURS: [&str; 4] = ["backups", "logs", "bin", "scripts"];
/// The longest compose file that is read.
const MAX_COMPOSE: u64 = 1 << 20;

/// The files, relative to the project directory: regular ones within it alone. Compose's syntax is not read: whatever a
/// compose file names counts where there is such a file, be it in `env_file`, `configs`, `secrets`, `include`, `extends` or
/// as a mount. Of a build context it is the Dockerfile, and the files that this copies. `.env` is backed up by itself.
/// `warnings` gets what is left out of a build context.
pub(super) fn files(project: &Path, containers: &[&Described], warnings: &mut Vec<String>) -> Vec<PathBuf> {
    let mut found = BTreeSet::new();
    let mut compose: Vec<PathBuf> = COMPOSE_FILES.iter().map(PathBuf::from).collect();
    for container in containers {
        let labels = [container.label(FILES), container.label(ENV_FILES)];
        compose.extend(labels.iter().flat_map(|files| files.split(',')).map(PathBuf::from));
        found.extend(
            container
                .mounts
                .iter()
                .filter_map(|mount| within(project, Path::new(&mount.source))),
        );
    }
    let mut unread: Vec<PathBuf> = compose.iter().filter_map(|file| within(project, file)).collect();
    while let Some(file) = unread.pop() {
        if !found.insert(file.clone()) || !is_yaml(&file) {
            continue;
        }
        let path = project.join(&file);
        let Ok(text) = fs::metadata(&path).and_then(|meta| match meta.len() <= MAX_COMPOSE {
            true => fs::read_to_string(&path),
            false => Ok(String::new()),
        }) else {
            continue;
        };
        let from = file.parent().unwrap_or(Path::new(""));
        for context in contexts(&text).filter_map(|context| real_below(project, &from.join(context))) {
            for dockerfile in dockerfiles(&text).map(|name| context.join(name)) {
                let Some(dockerfile) = within(project, &dockerfile) else {
                    continue;
                };
                let left_out = add_context(project, &context, &dockerfile, &mut found);
                let left_out = left_out.join(" ");
                let warning = format!("{} copies what is not backed up: {left_out}", dockerfile.display());
                if !left_out.is_empty() && !warnings.contains(&warning) {
                    warnings.push(warning);
                }
            }
        }
        unread.extend(words(&text).filter_map(|word| within(project, &from.join(word))));
    }
    found.into_iter().collect()
}

/// What Compose was called with and [`files`] leaves out, each with a warning: without it the stack cannot be deployed again.
pub(super) fn left_out(project: &Path, containers: &[&Described]) -> Vec<String> {
    let labels = containers
        .iter()
        .flat_map(|container| [FILES, ENV_FILES].map(|label| container.label(label)));
    let called: BTreeSet<&str> = labels
        .flat_map(|files| files.split(','))
        .filter(|file| !file.is_empty())
        .collect();
    let left = called
        .into_iter()
        .filter(|file| below(project, Path::new(file)).is_none());
    left.map(|file| {
        format!(
            "{file}, with which Compose was called, is not backed up with the deployment: it is no regular file below this directory; \
             put it there, or keep a copy of it by other means"
        )
    })
    .collect()
}

/// The build contexts in a compose file.
fn contexts(text: &str) -> impl Iterator<Item = &str> {
    values(text, &["build", "context"])
}

/// What may be the name of a Dockerfile of a compose file.
fn dockerfiles(text: &str) -> impl Iterator<Item = &str> {
    values(text, &["dockerfile"]).chain(["Dockerfile"])
}

/// The words that follow one of these keys.
fn values<'a>(text: &'a str, keys: &'static [&str]) -> impl Iterator<Item = &'a str> {
    let pairs = words(text).zip(words(text).skip(1));
    pairs.filter(|(key, _)| keys.contains(key)).map(|(_, value)| value)
}

/// Adds a Dockerfile, what goes with it, and the files of its context that it copies. Gives what else it copies.
fn add_context(project: &Path, context: &Path, dockerfile: &Path, found: &mut BTreeSet<PathBuf>) -> Vec<String> {
    found.insert(dockerfile.to_owned());
    found.extend(within(project, &context.join(".dockerignore")));
    let text = fs::read_to_string(project.join(dockerfile)).unwrap_or_default();
    let text = text.replace("\\\n", " ");
    let mut left_out = Vec::new();
    for line in text.lines() {
        let mut words: Vec<&str> = line
            .split([' ', '\t', '"', ',', '[', ']'])
            .filter(|word| !word.is_empty())
            .collect();
        let copies = words
            .first()
            .is_some_and(|word| ["COPY", "ADD"].contains(&&*word.to_ascii_uppercase()));
        if !copies
            || words
                .iter()
                .any(|word| word.starts_with("--from=") || word.starts_with("<<"))
        {
            continue;
        }
        // The last one is where it goes.
        words.pop();
        let sources = words.into_iter().skip(1);
        for source in sources.filter(|word| !word.starts_with("--") && !word.contains("://")) {
            // A path of a context begins there in any case.
            match within(project, &context.join(source.trim_start_matches('/'))) {
                Some(file) => drop(found.insert(file)),
                None => left_out.push(source.to_owned()),
            }
        }
    }
    left_out
}

/// The path from the project directory of a directory below it, or of itself.
fn real_below(project: &Path, directory: &Path) -> Option<PathBuf> {
    let path = project.join(directory).canonicalize().ok()?;
    let relative = path.strip_prefix(project).ok()?;
    path.is_dir().then(|| relative.to_owned())
}

/// The path from the project directory of a directory below it that a container mounts.
fn directory(project: &Path, source: &str) -> Option<String> {
    let relative = real_below(project, Path::new(source))?;
    (!relative.as_os_str().is_empty()).then(|| relative.display().to_string())
}

/// What a container of another program keeps in volumes, and in directories of the project, as far as n8n does not see it
/// too.
pub(super) fn uncovered(other: &Described, stack: &Stack<'_>, project: &Path) -> Option<String> {
    let seen = |mount: &MountPoint| {
        let mut mounts = stack.servers.iter().flat_map(|server| &server.mounts);
        mounts.any(|known| known.volume == mount.volume && known.source == mount.source)
    };
    let volumes = other.mounts.iter().filter(|mount| !seen(mount));
    let volumes: Vec<String> = volumes
        .filter_map(|mount| match mount.volume.as_str() {
            "" => directory(project, &mount.source),
            volume => Some(volume.to_owned()),
        })
        .collect();
    (!volumes.is_empty()).then(|| {
        format!(
            "{} is not n8n's, and its data are not backed up: {}",
            other.name,
            volumes.join(" ")
        )
    })
}

/// How Compose was called for n8n's containers, by their labels.
pub(super) fn composed(project: &Path, stack: &Stack<'_>) -> Composed {
    let mut services: Vec<String> = stack
        .servers
        .iter()
        .map(|server| server.label(SERVICE).to_owned())
        .filter(|service| !service.is_empty())
        .collect();
    services.sort_unstable();
    services.dedup();
    let files = |label: &str| -> Option<Vec<PathBuf>> {
        let names = stack.main.label(label).split(',').filter(|name| !name.is_empty());
        names.map(|name| below(project, Path::new(name))).collect()
    };
    let is_here = is_of(stack.main, project);
    let called = files(FILES).zip(files(ENV_FILES)).filter(|_| is_here);
    let (files, env_files) = called.unwrap_or_default();
    Composed {
        files,
        env_files,
        services,
    }
}

/// What may be the name of a file in a compose file; of a mount, the part before the colon.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(|line| line.split([' ', '\t', '"', '\'', ',', '[', ']', '{', '}', '=']))
        .map(|word| word.split(':').next().unwrap_or_default())
        .filter(|word| !word.is_empty())
}

fn is_yaml(file: &Path) -> bool {
    file.extension().is_some_and(|end| end == "yaml" || end == "yml")
}

/// A file of the deployment, as its path from the project directory.
fn within(project: &Path, file: &Path) -> Option<PathBuf> {
    let relative = below(project, file)?;
    let first = relative.components().next();
    let is_ours = matches!(first, Some(Component::Normal(name)) if OURS.iter().any(|ours| name == *ours));
    (!is_ours && relative != Path::new(".env")).then_some(relative)
}

/// A regular file below the project directory, as its path from there.
fn below(project: &Path, file: &Path) -> Option<PathBuf> {
    let path = project.join(file);
    if !path.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
        return None;
    }
    // No link on the way leads out, and `..` is gone.
    let path = path.canonicalize().ok()?;
    path.strip_prefix(project).ok().map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::describe::tests::described;
    use crate::testing::TempDir;

    fn write(project: &Path, name: &str, text: &str) {
        let path = project.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn what_the_compose_files_name_is_found() {
        let dir = TempDir::new();
        let project = dir.path().canonicalize().unwrap();
        let write = |name: &str, text: &str| write(&project, name, text);
        write(
            "docker-compose.yml",
            "include:\n  - more/db.yaml\nservices:\n  n8n:\n    env_file: [n8n.env, \"./none.env\"]\n    # hidden.env\n    \
             volumes:\n      - ./files:/files\n      - './hook.js:/data/hook.js:ro'\nsecrets:\n  key:\n    file: ./secrets/key\n",
        );
        write(
            "more/db.yaml",
            "services: {db: {volumes: [\"../init.sql:/docker-entrypoint-initdb.d/init.sql\"]}}\n",
        );
        for name in [
            "n8n.env",
            "hidden.env",
            "hook.js",
            "secrets/key",
            "init.sql",
            ".env",
            "files/a",
            "backups/x",
            "other",
        ] {
            write(name, "x");
        }
        std::os::unix::fs::symlink("/etc/passwd", project.join("none.env")).unwrap();
        let found: Vec<String> = files(&project, &[], &mut Vec::new())
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        assert_eq!(
            found,
            [
                "docker-compose.yml",
                "hook.js",
                "init.sql",
                "more/db.yaml",
                "n8n.env",
                "secrets/key"
            ]
        );
        assert!(files(TempDir::new().path(), &[], &mut Vec::new()).is_empty());
    }

    #[test]
    fn of_a_build_context_the_files_are_found_and_the_rest_is_told() {
        let dir = TempDir::new();
        let project = dir.path().canonicalize().unwrap();
        let write = |name: &str, text: &str| write(&project, name, text);
        write(
            "compose.yaml",
            "services:\n  n8n:\n    build: ./n8n\n  web:\n    build:\n      context: web\n      dockerfile: Web.docker\n  \
             far: {build: ../far}\n  git:\n    build: https://example.org/x.git\n",
        );
        write(
            "n8n/Dockerfile",
            "FROM n8nio/n8n\nCOPY --chown=node:node hook.js nodes \\\n  /data/\ncopy [\"a.sh\", \"/\"]\n\
             COPY --from=x /bin/y /bin/\nADD https://example.org/z /z\nRUN cp b.sh /b\n",
        );
        for name in [
            "n8n/hook.js",
            "n8n/nodes/x.js",
            "n8n/a.sh",
            "n8n/b.sh",
            "n8n/.dockerignore",
            "web/other",
        ] {
            write(name, "x");
        }
        write("web/Web.docker", "FROM scratch\nCOPY *.html /\n");
        let mut warnings = Vec::new();
        let found = files(&project, &[], &mut warnings);
        let names: Vec<String> = found.iter().map(|file| file.display().to_string()).collect();
        assert_eq!(
            names,
            [
                "compose.yaml",
                "n8n/.dockerignore",
                "n8n/Dockerfile",
                "n8n/a.sh",
                "n8n/hook.js",
                "web/Web.docker"
            ]
        );
        assert_eq!(
            warnings,
            [
                "n8n/Dockerfile copies what is not backed up: nodes",
                "web/Web.docker copies what is not backed up: *.html"
            ]
        );
    }

    #[test]
    fn what_compose_was_called_with_is_not_left_out_without_a_word() {
        let dir = TempDir::new();
        let project = dir.path().canonicalize().unwrap();
        fs::write(project.join("docker-compose.yml"), "services: {}\n").unwrap();
        std::os::unix::fs::symlink("docker-compose.yml", project.join("link.yml")).unwrap();
        let called = |files: &str| {
            let text = format!(r#"{{"Id": "1", "Name": "/x", "Config": {{"Labels": {{"{FILES}": "{files}"}}}}}}"#);
            left_out(&project, &[&described(&text)])
        };
        let inside = project.join("docker-compose.yml").display().to_string();
        assert!(called("").is_empty() && called(&inside).is_empty());
        for left in ["/etc/passwd", "gone.yml", "link.yml"] {
            let warnings = called(&format!("{inside},{left}"));
            assert!(warnings.len() == 1 && warnings[0].starts_with(left), "{warnings:?}");
        }
    }
}
