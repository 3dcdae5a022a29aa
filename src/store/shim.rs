//! What `install` puts into a project directory, told from what is the user's own there.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use super::atomic;

/// How the second line of each script of ours begins, and of the part that they share, in every version.
const MARK: &[u8] = b"# n8n-backup shim: ";

/// Whether a file is a script of ours, or their shared part, of any version.
pub fn is_shim(path: &Path) -> bool {
    let text = atomic::open(path).and_then(|file| {
        let mut first = Vec::new();
        file.take(1024).read_to_end(&mut first).map(|_| first)
    });
    let Ok(text) = text else { return false };
    text.split(|byte| *byte == b'\n')
        .nth(1)
        .is_some_and(|line| line.starts_with(MARK))
}

/// Whether a directory of the project holds the log, the program or scripts of ours: it is not to be replaced as a
/// whole.
pub fn holds_ours(project: &Path, dir: &Path) -> bool {
    let Ok(name) = dir.strip_prefix(project) else {
        return false;
    };
    match name.to_str() {
        Some("logs") => true,
        Some("bin") => dir.join("n8n-backup").exists(),
        Some("scripts" | "scripts/lib") => {
            let files = fs::read_dir(dir).into_iter().flatten().flatten();
            files.map(|file| file.path()).any(|file| is_shim(&file))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;

    #[test]
    fn a_directory_is_ours_by_what_is_in_it() {
        let dir = TempDir::new();
        let project = dir.path();
        let at = |name: &str| project.join(name);
        for name in ["logs", "bin", "scripts/lib", "scripts/mine"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        fs::write(at("scripts/mine.sh"), "#!/bin/sh\n# mine\n").unwrap();
        let ours =
            || ["logs", "bin", "scripts", "scripts/lib", "scripts/mine", ""].map(|name| holds_ours(project, &at(name)));
        assert_eq!(ours(), [true, false, false, false, false, false]);
        fs::write(at("bin/n8n-backup"), "").unwrap();
        fs::write(at("scripts/backup-all.sh"), include_str!("../../scripts/backup-all.sh")).unwrap();
        fs::write(at("scripts/lib/shim.sh"), include_str!("../../scripts/lib/shim.sh")).unwrap();
        assert_eq!(ours(), [true, true, true, true, false, false]);
        assert!(!holds_ours(project, Path::new("/usr/bin")));
    }
}
