//! The drill of an archive: it is unpacked onto a volume of its own, and what is there then is compared.

use std::io;
use std::path::Path;

use anyhow::{ensure, Context as _, Result};

use super::{facts, helper_image, MAX_CONFIG};
use crate::components::credentials;
use crate::components::drill::{check_recorded, DrillEnv, Drilled, Inconclusive, Stopwatch, JOURNAL};
use crate::config::Secret;
use crate::engine::DATA_MOUNT;
use crate::formats::tar;
use crate::process::Input;
use crate::report::units;
use crate::stream::read::{observe, read};

/// Directories and the ends of files take more room than the sum of the files' sizes.
const ROOM_OF_A_MEMBER: u64 = 8 << 10;

/// Unpacks the archive and compares members, files and sizes with the archive and the manifest. Gives also n8n's key,
/// where the volume holds one.
///
/// # Errors
/// What differs or fails; with [`Inconclusive`] when the test could not be made.
pub fn drill<'a>(env: &DrillEnv<'_>, file: &Path) -> Result<Drilled<'a>> {
    let context = env.app;
    let watch = Stopwatch::start();
    let scanner = || tar::Scanner::new().capture("./config", MAX_CONFIG);
    let packed = observe(&context.config, file, scanner())?.finish()?;
    check_recorded(env.point, "n8n.", &[], &facts(&packed))?;

    let image = helper_image(context, &env.docker, JOURNAL).context(Inconclusive)?;
    env.check_room(
        &image,
        packed
            .bytes
            .saturating_add(packed.members.saturating_mul(ROOM_OF_A_MEMBER)),
    )?;
    // It never runs, so any image serves.
    let volume = env.container(&image, &[], &["true"])?;
    let mut chain = context.chain();
    let contents = read(&context.config, &mut chain, file)?;
    let (stdin, stdout) = chain.stream("docker cp", volume.unpack(DATA_MOUNT), Input::Piped)?;
    let stdin = stdin.context("docker cp has no input")?;
    chain.pump("unpacking the archive", contents, stdin, ());
    chain.pump("reading from docker cp", stdout, io::sink(), ());
    chain.finish().context("the archive could not be unpacked")?;

    let mut chain = context.chain();
    let (_, stream) = chain.stream("docker cp", volume.pack(DATA_MOUNT), Input::Null)?;
    let seen = chain.pump("reading what was unpacked", stream, io::sink(), scanner());
    let unpacked = seen.get(&chain.finish()?)?.finish()?;
    let of = |summary: &tar::Summary| {
        format!(
            "{} members, {} files, {} bytes",
            summary.members, summary.files, summary.bytes
        )
    };
    ensure!(
        of(&unpacked) == of(&packed) && unpacked.captured == packed.captured,
        "there are {} on the volume, and {} in the archive",
        of(&unpacked),
        of(&packed)
    );
    let key = match &unpacked.captured {
        Some(config) => credentials::key_of_config(config)?,
        None => None,
    };
    let what = format!(
        "{} members, {} files, {}",
        unpacked.members,
        unpacked.files,
        units::amount(unpacked.bytes)
    );
    Ok(watch.drilled(what).with_key(key))
}

/// n8n's key in an archive, where it holds one.
pub fn key(env: &DrillEnv<'_>, file: &Path) -> Result<Option<Secret>> {
    let scanner = tar::Scanner::new().capture("./config", MAX_CONFIG);
    match observe(&env.app.config, file, scanner)?.finish()?.captured {
        Some(config) => credentials::key_of_config(&config),
        None => Ok(None),
    }
}
