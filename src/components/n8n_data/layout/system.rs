//! What of the engine's host is the system's.

use super::{is_of_project, is_within};
use crate::app::App;

/// What is mounted from there is the system's, where nothing says that it is n8n's.
const SYSTEM: [&str; 11] = [
    "/etc", "/usr", "/lib", "/lib64", "/bin", "/sbin", "/proc", "/sys", "/dev", "/run", "/boot",
];
/// Of these, what the kernel, packages and updates fill.
const FILLED: [&str; 18] = [
    "/lib",
    "/lib64",
    "/bin",
    "/sbin",
    "/proc",
    "/sys",
    "/dev",
    "/boot",
    "/usr/lib",
    "/usr/lib64",
    "/usr/bin",
    "/usr/sbin",
    "/usr/share",
    "/usr/local/share/ca-certificates",
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/etc/localtime",
];

/// Whether it is the system's, as far as its place tells.
pub(super) fn holds(app: &App, path: &str) -> bool {
    is_in(app, path, &SYSTEM)
}

/// Whether it holds what the system fills: a restore must not replace it, whatever n8n has it for.
pub(super) fn fills(app: &App, path: &str) -> bool {
    SYSTEM.contains(&path) || is_in(app, path, &FILLED)
}

/// Whether it is in one of these, and not in a project that lies there, too.
fn is_in(app: &App, path: &str, dirs: &[&str]) -> bool {
    let mut holding = dirs.iter().filter(|dir| is_within(path, dir));
    holding.any(|dir| !app.config.project.starts_with(dir) || !is_of_project(app, path))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    /// As on a disk that a desktop has mounted below `/run/media`.
    #[test]
    fn a_directory_of_a_project_is_not_the_systems() {
        for (project, path, wanted) in [
            ("/run/media/u/none/n8n", "/run/media/u/none/n8n/files", false),
            ("/run/media/u/none/n8n", "/run/media/u/none/other", true),
            ("/run/media/u/none/n8n", "/etc/none", true),
            ("/srv/none", "/srv/none/files", false),
            ("/", "/etc/none", true),
        ] {
            let app = App::new(Config::of_text(Path::new(project), Path::new(".env"), b"").unwrap());
            assert_eq!(holds(&app, path), wanted, "{project} {path}");
        }
    }
}
