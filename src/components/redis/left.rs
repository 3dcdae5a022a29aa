//! What a restore that was killed has left in Redis's volume.

use anyhow::Result;

use super::JOURNAL;
use crate::app::App;
use crate::components::dirswap::{begun, helper_owner, DirSwap, State, WORK};
use crate::engine::{Container, Data, Docker, Exec, Label};
use crate::store::Kind;

/// A function of the shell, `left`: takes the directory of Redis's data, and prints what a restore has left there. It is
/// asked in the container itself, since each backup asks, and a helper container takes the engine some time.
pub(super) fn shell_function() -> String {
    format!(
        r#"left() {{
  if [ -e "{}" ]; then echo begun
  elif [ -e "$1/{WORK}" ]; then echo staged
  else echo nothing
  fi
}}
"#,
        begun("$1")
    )
}

/// Where Redis keeps its data when it does not say.
const USUAL: &str = "/data";

/// What is left of a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    Nothing,
    /// What was to come, and nothing else.
    Staged,
    /// What was there, or a part of it, too.
    Begun,
}

impl Left {
    /// Of what [`shell_function`] prints.
    pub(super) fn of(told: &str) -> Self {
        match told.trim() {
            "begun" => Self::Begun,
            "staged" => Self::Staged,
            _ => Self::Nothing,
        }
    }

    /// As the container shows it that runs.
    pub(super) fn look(docker: &Docker, container: &str, dir: Option<&str>) -> Self {
        let script = format!("{}left \"$1\"", shell_function());
        let argv = ["sh", "-c", &script, "sh", dir.unwrap_or(USUAL)];
        let told = docker.answer("sh", docker.exec(container, Exec::default(), &argv), None);
        told.map_or(Self::Nothing, |told| Self::of(&told.text()))
    }

    /// What there is to say and to do where an exchange was begun.
    pub(super) fn warning(self, dir: Option<&str>) -> Option<String> {
        (self == Self::Begun).then(|| {
            format!(
                "An interrupted restore of Redis has left its traces, and what was there before, in {}/{WORK}: run the \
                 same restore again",
                dir.unwrap_or(USUAL)
            )
        })
    }
}

/// Removes what was only staged, and tells of the rest. The lock of the component is held, so that no restore works on
/// it. It is no failure of a backup where that does not come about.
pub(super) fn clear(app: &App, docker: &Docker, container: &Container, left: Left, dir: Option<&str>) {
    let left = match left {
        Left::Staged => remove(app, docker, container, dir.unwrap_or(USUAL)),
        other => Ok(other),
    };
    match left {
        Ok(left) => left.warning(dir).into_iter().for_each(|text| JOURNAL.warn(text)),
        Err(error) => {
            JOURNAL.warning(&error.context("What an interrupted restore has staged in Redis's volume was not removed"));
        }
    }
}

/// Removes what was staged. Gives what there is then.
fn remove(app: &App, docker: &Docker, container: &Container, dir: &str) -> Result<Left> {
    let owner = helper_owner(app, Kind::Redis);
    let label = Label::Helper(&owner);
    // What the killed restore had started may still write there.
    docker.sweep(label)?;
    let helper = docker.helper_container(&[label], &container.image_id, Data::Of(&container.name))?;
    let exchange = DirSwap::new(&helper, dir);
    match exchange.state()? {
        State::None => {}
        State::Staged => {
            exchange.roll_back(JOURNAL)?;
            JOURNAL.warn("Removed from Redis's volume what an interrupted restore had staged there");
        }
        State::Broken | State::Exchanged => return Ok(Left::Begun),
    }
    Ok(Left::Nothing)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::{sh, TempDir};

    #[test]
    fn what_is_staged_is_told_from_what_was_begun() {
        let dir = TempDir::new();
        let left = || {
            let output = sh(&format!("{}left \"$1\"", shell_function()))
                .arg("sh")
                .arg(dir.path())
                .output()
                .unwrap();
            Left::of(&String::from_utf8(output.stdout).unwrap())
        };
        assert_eq!(left(), Left::Nothing);
        let work = dir.path().join(WORK);
        fs::create_dir(&work).unwrap();
        assert_eq!(left(), Left::Staged);
        fs::write(begun(dir.path().to_str().unwrap()), "").unwrap();
        assert_eq!(left(), Left::Begun);
        assert!(left()
            .warning(Some("/there"))
            .unwrap()
            .contains("/there/.n8n-backup-restore"));
        assert_eq!(Left::Staged.warning(None), None);
    }
}
