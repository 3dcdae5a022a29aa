//! rehearse-update: the full recovery test with another n8n or PostgreSQL, before the stack is updated to it.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{ensure, Context as _, Error, Result};

use super::shared::open_stack;
use super::test_recovery::{rehearse, Rehearsal};
use super::{Command, Run};
use crate::cli::{Call, Flag, Row};
use crate::components::drill::{Inconclusive, JOURNAL};
use crate::components::n8n_image::{self, N8nImage};
use crate::engine::Docker;
use crate::process::hinted;
use crate::report::log;
use crate::store::Stamp;

const N8N_IMAGE: Flag = Flag::new("n8n-image", "the n8n to update to").value("IMAGE");
const POSTGRES_IMAGE: Flag = Flag::new("postgres-image", "the PostgreSQL to update to").value("IMAGE");
const PULL: Flag = Flag::new("pull", "fetch the images first");

pub const COMMAND: Command = Command {
    row: &Row {
        name: "rehearse-update",
        summary: "recover a recovery point with another n8n or PostgreSQL, before you update to it",
        details:
            "The operand is the image of n8n to update to, or a recovery point's stamp beside --n8n-image. It is the full\n\
                  recovery test (test-recovery --full) with those images: n8n migrates the recovered database, opens every\n\
                  credential and starts. Nothing of the live stack is touched. Exits 0 when it passed, 1 when it failed,\n\
                  2 when it could not be tried.",
        operand: Some("[IMAGE|SET]"),
        flags: &[N8N_IMAGE, POSTGRES_IMAGE, PULL],
        log: Some("recovery-test.log"),
        failure: 2,
        in_background: true,
    },
    run: Run::Project(run),
};

fn run(project: &Path, call: &Call) -> Result<u8> {
    let app = open_stack(project, call)?;
    let text = |flag| call.value(flag).map(|value| value.to_string_lossy().into_owned());
    let (n8n, set) = named(text(&N8N_IMAGE), call.operand.as_deref()).context(Inconclusive)?;
    let postgres = text(&POSTGRES_IMAGE);
    let names: Vec<&str> = [&n8n, &postgres].into_iter().flatten().map(String::as_str).collect();
    let names = names.join(" ");
    if names.is_empty() {
        return Err(Error::new(hinted(
            "There is no image to rehearse with",
            "name the n8n that you want to update to: rehearse-update n8nio/n8n:VERSION",
        ))
        .context(Inconclusive));
    }
    JOURNAL.info(format_args!("Starting rehearsal of an update: {names}"));
    log::check_started().context(Inconclusive)?;
    let docker = app.docker().context(Inconclusive)?;
    let found = |name: &Option<String>| -> Result<Option<N8nImage>> {
        let found = name.as_deref().map(|name| image(&docker, name, call.has(&PULL)));
        found.transpose().context(Inconclusive)
    };
    let rehearsal = Rehearsal {
        n8n: found(&n8n)?,
        postgres: found(&postgres)?.map(|image| image.id),
        names,
    };
    let mut stack: Vec<&str> = app.config.n8n_containers.iter().map(String::as_str).collect();
    stack.push(&app.config.postgres_container);
    let images = [
        (&n8n, rehearsal.n8n.as_ref().map(|image| &image.id)),
        (&postgres, rehearsal.postgres.as_ref()),
    ];
    let running = docker.containers(&stack).context(Inconclusive)?;
    for (name, id) in images {
        let (Some(name), Some(id)) = (name, id) else { continue };
        if let Some(container) = running.iter().find(|container| container.image_id == *id) {
            JOURNAL.warn(format_args!(
                "{name} is the image that {} already runs: pull or name the one to update to",
                container.name
            ));
        } else if let Some(container) = running.iter().find(|container| container.image == *name) {
            JOURNAL.warn(format_args!(
                "{name} is another image now than the one that {} runs: the next docker compose up updates to it (the present \
                 one is {})",
                container.name, container.image_id
            ));
        }
    }
    rehearse(&app, &rehearsal, set).map(u8::from)
}

/// The image of n8n and the recovery point that are meant: beside `n8n_image`, the operand is a recovery point.
fn named(n8n_image: Option<String>, operand: Option<&OsStr>) -> Result<(Option<String>, Option<&OsStr>)> {
    let Some(operand) = operand else {
        return Ok((n8n_image, None));
    };
    let text = operand.to_string_lossy();
    if text == "latest" || Stamp::parse(&text).is_some() {
        return Ok((n8n_image, Some(operand)));
    }
    ensure!(
        n8n_image.is_none(),
        hinted(
            format_args!("{text} is no recovery point"),
            "test-recovery --list shows those that there are"
        )
    );
    Ok((Some(text.into_owned()), None))
}

/// An image that is on this host. It is fetched first where that is asked for: a tag may have moved.
fn image(docker: &Docker, name: &str, pull: bool) -> Result<N8nImage> {
    if pull {
        JOURNAL.info(format_args!("Fetching {name}"));
        if let Err(error) = docker.pull(name) {
            // One that was built here is in no registry.
            if n8n_image::of_name(docker, name)?.is_none() {
                return Err(error);
            }
            JOURNAL.warning(&error.context(format!("{name} was not fetched; the image that is here is taken")));
        }
    }
    n8n_image::of_name(docker, name)?.with_context(|| {
        hinted(
            format_args!("Image {name} is not on this host"),
            format_args!("run docker pull {name}, or add --pull"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{executable, TempDir, STALL};

    #[test]
    fn a_mistyped_recovery_point_is_no_other() {
        let n8n = || Some("n8n:2".to_owned());
        let stamp = OsStr::new("20260102_030405");
        assert_eq!(named(n8n(), Some(stamp)).unwrap(), (n8n(), Some(stamp)));
        assert_eq!(named(None, Some(OsStr::new("n8n:2"))).unwrap(), (n8n(), None));
        assert_eq!(named(n8n(), None).unwrap(), (n8n(), None));
        let error = named(n8n(), Some(OsStr::new("20260102_03040"))).unwrap_err();
        assert!(error.to_string().contains("20260102_03040 is no recovery point"));
    }

    #[test]
    fn a_tag_that_is_here_is_fetched_again() {
        let dir = TempDir::new();
        let (program, pulled) = (dir.path().join("docker"), dir.path().join("pulled"));
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in\npull*) touch '{0}' ;;\n*) [ -e '{0}' ] && echo 'new||' || echo 'old||' ;;\nesac\n",
            pulled.display()
        );
        executable(&program, script);
        let docker = Docker::locate(Some(dir.path().into()), STALL).unwrap();
        assert_eq!(image(&docker, "n8n:latest", false).unwrap().id, "old");
        assert_eq!(image(&docker, "n8n:latest", true).unwrap().id, "new");
    }
}
