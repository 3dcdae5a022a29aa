//! rehearse-update: the full recovery test with another n8n or PostgreSQL, before the stack is updated to it.

use std::path::Path;

use anyhow::{Context as _, Error, Result};

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
const PULL: Flag = Flag::new("pull", "fetch an image that is not on this host");

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
    let operand = call.operand.as_deref().map(|operand| operand.to_string_lossy());
    let is_set = |operand: &str| operand == "latest" || Stamp::parse(operand).is_some();
    let named = operand
        .filter(|operand| !is_set(operand))
        .map(|image| image.into_owned());
    let set = call.operand.as_deref().filter(|_| named.is_none());
    let (n8n, postgres) = (text(&N8N_IMAGE).or(named), text(&POSTGRES_IMAGE));
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
    rehearse(&app, &rehearsal, set).map(u8::from)
}

/// An image that is on this host, or is fetched.
fn image(docker: &Docker, name: &str, pull: bool) -> Result<N8nImage> {
    if let Some(image) = n8n_image::of_name(docker, name)? {
        return Ok(image);
    }
    if pull {
        JOURNAL.info(format_args!("Fetching {name}"));
        docker.pull(name)?;
    }
    n8n_image::of_name(docker, name)?.with_context(|| {
        hinted(
            format_args!("Image {name} is not on this host"),
            format_args!("run docker pull {name}, or add --pull"),
        )
    })
}
