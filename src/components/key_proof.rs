//! The proof that n8n's key in a recovery point opens the credentials in its database: every one of them, or it is none.

use std::collections::BTreeMap;

use anyhow::{anyhow, bail, ensure, Context as _, Result};

use super::credentials::{self, Stored};
use super::drill::{check_file, DrillEnv, Inconclusive, JOURNAL};
use super::COMPONENTS;
use crate::app::App;
use crate::config::Secret;
use crate::store::Kind;

/// What was found in each place of the point that may hold n8n's key: by its drill, else in its file.
pub fn all_keys(
    env: &DrillEnv<'_>,
    mut known: BTreeMap<Kind, Option<Secret>>,
) -> Result<Vec<(&'static str, Option<Secret>)>> {
    let mut keys = Vec::new();
    for component in COMPONENTS.iter().rev() {
        let kind = component.kind();
        let (Some(place), Some(member)) = (component.about().key_place, env.point.member(kind)) else {
            continue;
        };
        let key = match known.remove(&kind) {
            Some(key) => key,
            None => {
                let path = env.path(member);
                check_file(env.app, &path, member)
                    .and_then(|()| component.key(env, &path))
                    .with_context(|| format!("The key cannot be looked for in {}", kind.name()))?
            }
        };
        keys.push((place, key));
    }
    Ok(keys)
}

/// Decrypts the stored credentials with the point's key, and says what came of it. Gives the words for the manifest.
pub fn prove(app: &App, keys: &[(&str, Option<Secret>)], stored: &[Stored]) -> Result<String> {
    let mut found = keys.iter().filter_map(|(place, key)| Some((place, key.as_ref()?)));
    let first = found.next();
    if let Some((place, key)) = first {
        for (other, another) in found {
            ensure!(
                key == another,
                "the key in {place} and the one in {other} differ: n8n does not start with both, and it is not clear which one \
                 decrypts the credentials"
            );
        }
    }
    let total = stored.len();
    if total == 0 {
        JOURNAL.info("The database holds no credentials to decrypt");
        return Ok("no credentials".to_owned());
    }
    let Some((_, key)) = first else {
        if keys.is_empty() {
            // A database that was backed up by itself is loaded and compared; a full test asks for more.
            JOURNAL.warn("Encryption key not checked: the recovery point holds the database alone");
            return Ok("not checked, the recovery point holds the database alone".to_owned());
        }
        bail!("the recovery point holds no encryption key, and its database {total} credentials");
    };
    let proof = credentials::prove(key, stored, app.config.stall).context(Inconclusive)?;
    let decrypted = format!("{} of {total}", proof.decrypted);
    if !proof.failed.is_empty() {
        let first: Vec<&str> = proof.failed.iter().take(5).map(String::as_str).collect();
        bail!(
            "Decrypted {decrypted} credentials with the backed-up key; {} cannot be decrypted, such as ID {}",
            proof.failed.len(),
            first.join(", ")
        );
    }
    if proof.unknown > 0 {
        return Err(anyhow!(
            "Decrypted {decrypted} credentials with the backed-up key; {} are stored in a form that is not known here, and were \
             not checked",
            proof.unknown
        )
        .context(Inconclusive));
    }
    JOURNAL.success(format_args!("Decrypted {decrypted} credentials with the backed-up key"));
    Ok(format!("decrypted {decrypted}"))
}
