//! The drill of an archive: it is unpacked onto a volume of its own, and what is there then is compared.

use std::path::Path;

use anyhow::{bail, ensure, Context as _, Result};

use super::layout::{stored, stored_part, MOUNTS};
use super::packer::{self, Packer, Rework};
use super::{facts, has_key, helper, with_key, AT_FACT, HOME_FACT, KEY_FACT};
use crate::components::credentials;
use crate::components::drill::{check_recorded, DrillEnv, Drilled, Inconclusive, Stopwatch, JOURNAL};
use crate::config::{Found, Secret};
use crate::engine::{Exec, ScratchContainer, DATA_MOUNT};
use crate::formats::tar;
use crate::report::units;
use crate::store::manifest::Point;
use crate::stream::read::{observe, read};

/// Directories and the ends of files take more room than the sum of the files' sizes.
const ROOM_OF_A_MEMBER: u64 = 8 << 10;

/// Takes a directory, what is removed from it, whom it is given to, and n8n's `config` in there. An empty one, with
/// which n8n does not start, is what the engine left where a file was mounted in its place.
const TAKE_OVER: &str = r#"rm -rf -- "$1/$2" && { [ -s "$1/$4" ] || rm -f -- "$1/$4"; } && chown -Rh "$3" "$1""#;

/// Unpacks the archive as a restore does, and compares with it, and with the manifest, what is there then. Gives also n8n's key,
/// where the volume holds one.
///
/// # Errors
/// What differs or fails; with [`Inconclusive`] when the test could not be made.
pub fn drill<'a>(env: &DrillEnv<'_>, file: &Path) -> Result<Drilled<'a>> {
    let context = env.app;
    let watch = Stopwatch::start();
    // No member stands for the directory that holds the other ones.
    let parts = [
        tar::Part {
            hidden: MOUNTS,
            ..tar::Part::default()
        },
        stored_part(),
    ];
    let mut scanners = packer::scanners(&parts);
    scanners.push(with_key(tar::Scanner::new(), env.point.fact(HOME_FACT)).with_names());
    let seen = observe(&context.config, file, scanners)?;
    let mut held = seen.into_iter().map(tar::Scanner::finish).collect::<Result<Vec<_>>>()?;
    let packed = held.pop().unwrap_or_default();
    let mut found = facts(&packed);
    // Earlier versions did not find each key that is there.
    found.retain(|(name, _)| name != KEY_FACT || !has_key(&packed));
    check_recorded(env.point, "n8n.", &[], &found)?;
    if let Some(name) = packed.unsafe_names.first() {
        bail!("the archive holds names that lead out of the volume ({name}), which a restore refuses");
    }

    let image = helper::image(context, &env.docker, JOURNAL).context(Inconclusive)?;
    env.check_room(
        &image,
        packed
            .bytes
            .saturating_add(packed.members.saturating_mul(ROOM_OF_A_MEMBER)),
    )?;
    let volume = env.helper(&image, None)?;
    let packer = Packer {
        app: context,
        docker: &env.docker,
        container: volume.id(),
    };
    let mut chain = context.chain();
    let contents = read(&context.config, &mut chain, file)?;
    let (seen, rework) = packer
        .unpack(chain, contents, DATA_MOUNT, 0, tar::Scanner::new().with_places())
        .context("the archive could not be unpacked")?;
    if rework == Rework::Needed {
        packer.rework(DATA_MOUNT, &seen.finish()?.places)?;
    }
    for (held, there) in held.iter().zip(packer.look(DATA_MOUNT, &parts)?) {
        packer::compare(held, &there, "the volume")?;
    }
    let key = match &packed.captured {
        Some(config) => credentials::key_of_config(config)?,
        None => None,
    };
    let what = format!(
        "{} members, {} files, {}",
        packed.members,
        packed.files,
        units::amount(packed.bytes)
    );
    let places = places_of_binary_data(&context.config.found, env.point);
    Ok(watch.drilled(what).with_key(key).with_files(packed.names, places))
}

/// Where an archive may hold the directory that n8n keeps binary data in: below the home, beside it in what is mounted
/// there, or by the path of whatever was mounted at or above it.
fn places_of_binary_data(found: &Found, point: &Point) -> Vec<String> {
    let path = Path::new(&found.storage);
    let below = |dir: &str| Some(path.strip_prefix(dir).ok()?.display().to_string());
    // n8n 1 and 2.
    let mut below_home = vec!["binaryData".to_owned(), "storage".to_owned()];
    below_home.extend(below(&found.home));
    let mounted = path.ancestors().filter_map(|at| {
        let below = path.strip_prefix(at).ok()?;
        Some(format!("{}/{}", stored(at.to_str()?), below.display()))
    });
    // The same where the home is mounted above n8n's directory.
    let homes = [Some(".n8n"), point.fact(HOME_FACT)];
    let above = homes.into_iter().flatten();
    let above = above.flat_map(|home| below_home.iter().map(move |below| format!("{home}/{below}")));
    let beside = point.fact(AT_FACT).and_then(below);
    above.chain(mounted).chain(beside).chain(below_home.clone()).collect()
}

/// Unpacks the archive into the directory that a scratch container has its volume at, without what n8n mounts besides. All
/// of it belongs to `owner` then (`UID:GID`), since nobody in that container may read what is another's.
pub fn unpack_home(
    env: &DrillEnv<'_>,
    file: &Path,
    container: &ScratchContainer,
    home: &str,
    owner: &str,
) -> Result<()> {
    let image = helper::image(env.app, &env.docker, JOURNAL)?;
    let helper = env.helper(&image, Some(container))?;
    let packer = Packer {
        app: env.app,
        docker: &env.docker,
        container: helper.id(),
    };
    let mut chain = env.app.chain();
    let contents = read(&env.app.config, &mut chain, file)?;
    packer.unpack(chain, contents, home, 0, ())?;
    let config = env
        .point
        .fact(HOME_FACT)
        .map_or_else(|| "config".to_owned(), |below| format!("{below}/config"));
    let argv = ["sh", "-c", TAKE_OVER, "sh", home, MOUNTS, owner, &config];
    let take_over = env.docker.exec(helper.id(), Exec::default(), &argv);
    let done = env.docker.answer("sh", take_over, None)?;
    ensure!(done.success, "it could not be given to n8n's user: {}", done.stderr);
    Ok(())
}

/// n8n's key in an archive, where it holds one.
pub fn key(env: &DrillEnv<'_>, file: &Path) -> Result<Option<Secret>> {
    let scanner = with_key(tar::Scanner::new(), env.point.fact(HOME_FACT));
    match observe(&env.app.config, file, scanner)?.finish()?.captured {
        Some(config) => credentials::key_of_config(&config),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Stamp;

    #[test]
    fn binary_data_are_looked_for_where_n8n_keeps_them() {
        let places = |home: &str, storage: &str, facts: &[(&str, &str)]| {
            let (home, storage) = (home.to_owned(), storage.to_owned());
            let mut point = Point::new(Stamp::now());
            facts.iter().for_each(|(name, value)| point.set(name, value));
            let found = Found {
                home,
                storage,
                ..Found::default()
            };
            places_of_binary_data(&found, &point)
        };
        let home = "/home/node/.n8n";
        let has = |storage: &str, place: &str| places(home, storage, &[]).iter().any(|known| known == place);
        assert!(has("", "binaryData") && has("/data", ".n8n/storage"));
        assert!(has("/data/binary", ".n8n-backup-mounts/%2Fdata%2Fbinary/"));
        assert!(has("/data/binary", ".n8n-backup-mounts/%2Fdata/binary"));
        assert!(has("/home/node/.n8n/files", "files") && !has("/data", "data"));
        // Beside n8n's directory, in what is mounted above that.
        let above = [(AT_FACT, "/home/node"), (HOME_FACT, ".n8n")];
        let beside = places(home, "/home/node/binary", &above);
        assert!(beside.contains(&"binary".to_owned()), "{beside:?}");
        assert!(!has("/home/node/binary", "binary"));
        let deep = [(AT_FACT, "/data"), (HOME_FACT, "deep/.n8n")];
        let deep = places("/data/deep/.n8n", "", &deep);
        for place in ["deep/.n8n/binaryData", "deep/.n8n/storage"] {
            assert!(deep.contains(&place.to_owned()), "{deep:?}");
        }
    }
}
