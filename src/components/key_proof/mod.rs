//! The proof that n8n's key in a recovery point opens what is encrypted in its database: all of it, or it is none.
//!
//! Either n8n's image opens it with its Node.js, which also checks the tag of what is stored under GCM, or a scratch server does,
//! with pgcrypto in a database of its own. Both read the rows and the key from a pipe, and print verdicts: nothing that was decrypted
//! leaves them, and no key stands in an argument, an environment, a log or a file.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::process::Command;

use anyhow::{anyhow, bail, ensure, Context as _, Result};

use super::drill::{check_file, DrillEnv, Inconclusive, RecoveredDatabase, JOURNAL};
use super::n8n_image::{self, N8nImage};
use super::COMPONENTS;
use crate::config::Secret;
use crate::formats::text::unhex;
use crate::process::{hinted, Chain, ChildOutput, Input, Observer};
use crate::store::Kind;

/// Open what is encrypted.
const OPEN_JS: &str = include_str!("open.js");
const OPEN_SQL: [&str; 2] = [include_str!("open.sql"), include_str!("verdicts.sql")];
/// The verdicts in bytes. More are not read; those of credentials that were opened are only counted.
const MAX_VERDICTS: usize = 32 << 20;
/// How many credentials an error names.
const NAMED: usize = 20;

/// What the key was proven to open.
pub struct Proof {
    /// The key; none where there was nothing to open.
    pub key: Option<Secret>,
    /// For the manifest.
    pub words: String,
    /// How many credentials there are.
    pub credentials: usize,
    /// Those that cannot be opened, as the settings say.
    pub dead: Vec<String>,
}

/// One thing that was not opened.
#[derive(Debug, PartialEq, Eq)]
struct Sealed {
    why: Why,
    kind: String,
    id: String,
    name: String,
    kind_of: String,
}

/// Why it was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Failed,
    /// The data key that it was encrypted under is not in the database.
    KeyMissing,
    UnknownForm,
}

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdicts {
    opened: BTreeMap<String, usize>,
    sealed: Vec<Sealed>,
}

/// What was found in each place of the point that may hold n8n's key: by its drill, else in its file.
pub fn all_keys(
    env: &DrillEnv<'_>,
    mut known: BTreeMap<Kind, Option<Secret>>,
) -> Result<Vec<(&'static str, Option<Secret>)>> {
    let mut keys = Vec::new();
    for component in COMPONENTS.iter().rev() {
        let kind = component.kind();
        let (Some(place), Some(member)) = (component.about().key_place, component.member(env.point)) else {
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

/// Opens what is encrypted in `database` with the point's key, and says what came of it.
///
/// # Errors
/// What is not opened; with [`Inconclusive`] when nothing here can open it, or it has a form that is not known.
pub fn prove(
    env: &DrillEnv<'_>,
    keys: &[(&str, Option<Secret>)],
    database: &dyn RecoveredDatabase,
    n8n: Option<&N8nImage>,
) -> Result<Proof> {
    let key = agreed(keys)?;
    let Lines {
        rows,
        credentials: total,
        ..
    } = count(env, database).context(Inconclusive)?;
    let nothing = |words: &str| Proof {
        key: None,
        words: words.to_owned(),
        credentials: total,
        dead: Vec::new(),
    };
    if rows == 0 {
        JOURNAL.info("The database holds no credentials to decrypt");
        return Ok(nothing("no credentials"));
    }
    let Some(key) = key else {
        if keys.is_empty() {
            // A database that was backed up by itself is loaded and compared; a full test asks for more.
            JOURNAL.warn("Encryption key not checked: the recovery point holds the database alone");
            return Ok(nothing("not checked, the recovery point holds the database alone"));
        }
        let what = match total {
            0 => format!("{rows} keys or secrets of users"),
            _ => format!("{total} credentials"),
        };
        bail!("the recovery point holds no encryption key, and its database holds {what}");
    };
    let (verdicts, authenticated) = open(env, database, key, n8n).context(Inconclusive)?;
    let told = verdicts.count("credential");
    if told != total {
        let error = anyhow!("There is a verdict on {told} of {total} credentials");
        return Err(error.context(Inconclusive));
    }
    let decrypted = format!("{} of {total}", verdicts.opened.get("credential").unwrap_or(&0));
    let dead = verdicts
        .judge(&decrypted, &env.app.config.dead_credentials)
        .map_err(|error| match n8n.and_then(|n8n| n8n.live_key(&env.docker)) {
            Some(live) if error.is::<Inconclusive>() || live == *key => error,
            Some(_) => error.context("The backed-up key is not the one that the running n8n uses"),
            None => error,
        })?;
    if total > 0 {
        JOURNAL.success(format_args!("Decrypted {decrypted} credentials with the backed-up key"));
    } else {
        JOURNAL.success("The database holds no credentials, and the backed-up key decrypts what else is encrypted");
    }
    let others: Vec<String> = [
        ("signing", "signing keys"),
        ("mfa", "secrets and recovery codes of users"),
    ]
    .iter()
    .filter_map(|(kind, what)| Some(format!("{} {what}", verdicts.opened.get(*kind)?)))
    .collect();
    if !others.is_empty() {
        JOURNAL.info(format_args!("It also decrypts {}", others.join(" and ")));
    }
    let how = if authenticated { "authenticated" } else { "decrypted" };
    Ok(Proof {
        key: Some(key.clone()),
        words: match total {
            0 => "no credentials".to_owned(),
            _ => format!("{how} {decrypted}"),
        },
        credentials: total,
        dead,
    })
}

/// Asks n8n's image whether the point's key opens each credential in `rows`, which are lines as the openers take them. Gives the
/// IDs of those that it does not open, and whether that is certain: not of a form that is not known.
///
/// # Errors
/// It cannot be asked, or the point holds no key.
pub fn not_opened(env: &DrillEnv<'_>, rows: Vec<u8>) -> Result<BTreeMap<String, bool>> {
    let image = n8n_image::find(env.app, &env.docker, env.point)?.context("n8n's image is not on this host")?;
    let keys = all_keys(env, BTreeMap::new())?;
    let key = agreed(&keys)?.context("the recovery point holds no key")?;
    not_opened_by(key, env, &image, rows)
}

/// The same of the key that the running n8n uses; none where that cannot be found out.
pub fn not_opened_live(env: &DrillEnv<'_>, rows: Vec<u8>) -> Result<Option<BTreeMap<String, bool>>> {
    let image = n8n_image::find(env.app, &env.docker, env.point)?;
    let found = image.and_then(|image| Some((image.live_key(&env.docker)?, image)));
    found
        .map(|(key, image)| not_opened_by(&key, env, &image, rows))
        .transpose()
}

fn not_opened_by(key: &Secret, env: &DrillEnv<'_>, image: &N8nImage, rows: Vec<u8>) -> Result<BTreeMap<String, bool>> {
    let total = rows.split_inclusive(|byte| *byte == b'\n').filter(|row| row[0] == b'c');
    let total = total.count();
    let node = env.confined_run(&image.id, "node", &["-e", OPEN_JS]);
    let verdicts = judged(
        env.app.chain(),
        io::Cursor::new(rows),
        key,
        ("node", node),
        ["", "\\.\n"],
    )?;
    let told = verdicts.count("credential");
    ensure!(told == total, "there is a verdict on {told} of {total} credentials");
    let sealed = verdicts.sealed.into_iter().filter(|one| one.kind == "credential");
    Ok(sealed.map(|one| (one.id, one.why != Why::UnknownForm)).collect())
}

/// The key; none where no place holds one.
///
/// # Errors
/// Two differ.
fn agreed<'a>(keys: &'a [(&str, Option<Secret>)]) -> Result<Option<&'a Secret>> {
    let mut found = keys.iter().filter_map(|(place, key)| Some((place, key.as_ref()?)));
    let Some((place, key)) = found.next() else {
        return Ok(None);
    };
    for (other, another) in found {
        ensure!(
            key == another,
            "the key in {place} and the one in {other} differ: n8n does not start with both, and it is not clear which one \
             decrypts the credentials"
        );
    }
    Ok(Some(key))
}

/// How much there is that is encrypted.
fn count(env: &DrillEnv<'_>, database: &dyn RecoveredDatabase) -> Result<Lines> {
    let mut chain = env.app.chain();
    let rows = sealed(&mut chain, database)?;
    let counted = chain.pump("reading what is encrypted", rows, io::sink(), Lines::default());
    counted.get(&chain.finish()?)
}

/// Has the database print what is encrypted in it.
fn sealed(chain: &mut Chain, database: &dyn RecoveredDatabase) -> Result<ChildOutput> {
    let (program, script) = database.sealed()?;
    let (stdin, rows) = chain.stream("the database's program", program, Input::Piped)?;
    let stdin = stdin.context("a program has no input")?;
    chain.pump("asking for what is encrypted", io::Cursor::new(script), stdin, ());
    Ok(rows)
}

/// Counts lines, and those that begin with `credential`.
#[derive(Default)]
struct Lines {
    rows: usize,
    credentials: usize,
    within: bool,
}

impl Observer for Lines {
    fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            self.rows += usize::from(!self.within);
            // No other kind begins so.
            self.credentials += usize::from(!self.within && part[0] == b'c');
            self.within = !part.ends_with(b"\n");
        }
        Ok(())
    }
}

/// By the first means that works. Gives also whether tags were checked.
fn open(
    env: &DrillEnv<'_>,
    database: &dyn RecoveredDatabase,
    key: &Secret,
    n8n: Option<&N8nImage>,
) -> Result<(Verdicts, bool)> {
    let mut failed = None;
    if let Some(image) = n8n {
        let node = env.confined_run(&image.id, "node", &["-e", OPEN_JS]);
        match pass(env, database, key, ("node", node), ["", "\\.\n"]) {
            Ok(verdicts) => return Ok((verdicts, true)),
            Err(error) => failed = Some(error.context(format!("n8n's image {}", image.name))),
        }
    }
    let server = database
        .scratch("n8n_backup_key")
        .and_then(|psql| pass(env, database, key, ("psql", psql), OPEN_SQL));
    match (server, failed) {
        (Ok(verdicts), None) => Ok((verdicts, false)),
        (Ok(verdicts), Some(error)) => {
            JOURNAL.warning(&error.context("The key was tested by pgcrypto alone, which checks no tags"));
            Ok((verdicts, false))
        }
        (Err(error), None) => {
            Err(error.context("The encryption key cannot be tested by pgcrypto, nor is n8n's image here"))
        }
        (Err(error), Some(first)) => {
            Err(anyhow!("{first:#}; {error:#}").context("The encryption key cannot be tested"))
        }
    }
}

/// Passes the rows of `database` to an opener, between the two texts, and reads its verdicts. The key is the first row.
fn pass(
    env: &DrillEnv<'_>,
    database: &dyn RecoveredDatabase,
    key: &Secret,
    (name, opener): (&'static str, Command),
    around: [&'static str; 2],
) -> Result<Verdicts> {
    let mut chain = env.app.chain();
    let rows = sealed(&mut chain, database)?;
    judged(chain, rows, key, (name, opener), around)
}

/// The same of rows that come in a chain.
fn judged(
    mut chain: Chain,
    rows: impl Read + Send + 'static,
    key: &Secret,
    (name, opener): (&'static str, Command),
    around: [&'static str; 2],
) -> Result<Verdicts> {
    let (stdin, verdicts) = chain.stream(name, opener, Input::Piped)?;
    let stdin = stdin.context("a program has no input")?;
    let key: String = key.reveal().bytes().map(|byte| format!("{byte:02x}")).collect();
    let head = format!("{}instance\t\t\t\t\t{key}\n", around[0]);
    let contents = io::Cursor::new(head).chain(rows).chain(io::Cursor::new(around[1]));
    chain.pump("passing on what is encrypted", contents, stdin, ());
    let verdicts = chain.collect(format!("reading from {name}"), verdicts, MAX_VERDICTS);
    let finished = chain.finish()?;
    Verdicts::parse(&String::from_utf8_lossy(&verdicts.get(&finished)?))
}

impl Verdicts {
    /// Reads what an opener prints.
    fn parse(text: &str) -> Result<Self> {
        let mut verdicts = Self::default();
        let mut lines = text.lines();
        for line in lines.by_ref().take_while(|line| *line != "end") {
            let fields: Vec<&str> = line.split('\t').collect();
            match fields[..] {
                ["opened", kind, count] => {
                    verdicts.opened.insert(kind.to_owned(), count.parse()?);
                }
                [why, kind, id, name, kind_of] => verdicts.sealed.push(Sealed {
                    why: match why {
                        "failed" => Why::Failed,
                        "missing" => Why::KeyMissing,
                        "unknown" => Why::UnknownForm,
                        other => bail!("an unexpected verdict: {other}"),
                    },
                    kind: kind.to_owned(),
                    id: of_hex(id)?,
                    name: of_hex(name)?,
                    kind_of: of_hex(kind_of)?,
                }),
                _ => bail!("unexpected output"),
            }
        }
        ensure!(text.lines().next_back() == Some("end"), "the output is cut off");
        Ok(verdicts)
    }

    fn count(&self, kind: &str) -> usize {
        self.opened.get(kind).unwrap_or(&0) + self.sealed.iter().filter(|one| one.kind == kind).count()
    }

    /// What is not opened is an error, but for the credentials that the settings name. Gives their IDs.
    fn judge(&self, decrypted: &str, known_dead: &[String]) -> Result<Vec<String>> {
        let is_dead = |one: &&Sealed| one.kind == "credential" && known_dead.contains(&one.id);
        let (dead, sealed): (Vec<&Sealed>, Vec<&Sealed>) = self.sealed.iter().partition(is_dead);
        for one in &dead {
            JOURNAL.warn(format_args!(
                "{one} cannot be decrypted, as BACKUP_DEAD_CREDENTIALS says"
            ));
        }
        let (unknown, broken): (Vec<&Sealed>, Vec<&Sealed>) =
            sealed.into_iter().partition(|one| one.why == Why::UnknownForm);
        if !broken.is_empty() {
            let error = format!(
                "Decrypted {decrypted} credentials with the backed-up key; {} cannot be decrypted: {}",
                broken.len(),
                named(&broken)
            );
            if !broken.iter().any(|one| one.kind == "credential") {
                bail!(error);
            }
            bail!(hinted(
                error,
                "put the IDs of credentials that n8n itself cannot open any more into BACKUP_DEAD_CREDENTIALS: the test then \
                 only warns of them"
            ));
        }
        if !unknown.is_empty() {
            let error = anyhow!(
                "Decrypted {decrypted} credentials with the backed-up key; {} are stored in a form that is not known here, and were \
                 not checked: {}",
                unknown.len(),
                named(&unknown)
            );
            return Err(error.context(Inconclusive));
        }
        Ok(dead.into_iter().map(|one| one.id.clone()).collect())
    }
}

fn of_hex(hex: &str) -> Result<String> {
    let bytes = unhex(hex).context("unexpected output")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The first of them.
fn named(sealed: &[&Sealed]) -> String {
    let mut names: Vec<String> = sealed.iter().take(NAMED).map(ToString::to_string).collect();
    if sealed.len() > NAMED {
        names.push("...".to_owned());
    }
    names.join(", ")
}

impl fmt::Display for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, name, kind_of, .. } = self;
        match self.kind.as_str() {
            "credential" if name.is_empty() => write!(f, "ID {id}")?,
            "credential" => write!(f, "ID {id} (\"{name}\", {kind_of})")?,
            "key" => write!(f, "data key {id}")?,
            "signing" => write!(f, "key {name}")?,
            _ => write!(f, "a secret or recovery code of user {id}")?,
        }
        match self.why {
            Why::KeyMissing => f.write_str(", whose data key is missing"),
            Why::Failed | Why::UnknownForm => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
