//! The files that the stack is deployed from, in one archive beside the copy of `.env`: so that a lost host comes back. With
//! n8n's key, where nothing else in the recovery point holds it.

use std::fs;
use std::io::{self, Cursor, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context as _, Result};

use super::{JOURNAL, LIMIT};
use crate::app::App;
use crate::components::credentials;
use crate::components::{File, RestoreOptions};
use crate::config::Secret;
use crate::formats::tar;
use crate::formats::tar::small::{pack, unpack, SmallFile};
use crate::report::log::Journal;
use crate::store::atomic::{self, Access};
use crate::store::{inventory, lies_in, make_dir_as, Kind, Stamp};
use crate::stream::encrypt::Locked;
use crate::stream::publish::{publish, Packed};
use crate::stream::read::{check_recorded, read};

/// The member that holds n8n's key.
const KEY: &str = "n8n.key";
/// What all files may hold together.
const MAX_BYTES: u64 = 16 << 20;
/// The longest name that a header takes.
const MAX_NAME: usize = 100;

/// Archives the files; none where there are none. Gives also whether n8n's key is among them: where `env`, the text of
/// `.env`, does not hold it.
pub fn backup(app: &App, stamp: Stamp, env: &[u8]) -> Result<Option<(File, bool)>> {
    let files = collect(app, env)?;
    if files.is_empty() {
        return Ok(None);
    }
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    JOURNAL.info(format_args!("Backing up the deployment: {}", names.join(" ")));
    let holds_key = names.contains(&KEY);
    if holds_key && app.config.encryption.is_none() {
        JOURNAL.warn(
            "The recovery point holds n8n's key and is not encrypted: whoever reads the backups can read the credentials \
             (BACKUP_GPG_PASSPHRASE encrypts them, BACKUP_KEY=off leaves the key out)",
        );
    }
    let archive = Cursor::new(pack(&files)?);
    let mut chain = app.chain();
    let target = app.target(Kind::Deployment, stamp);
    let packed = Packed::start(&target, &mut chain, archive, tar::Scanner::new(), JOURNAL)?;
    let (partial, bytes, scanner, sha256) = packed.get(&chain.finish()?)?;
    scanner.finish()?;
    let entry = publish(&app.config, partial, bytes)?;
    let kind = Kind::Deployment;
    Ok(Some((File { kind, entry, sha256 }, holds_key)))
}

/// The files, and the key.
fn collect(app: &App, env: &[u8]) -> Result<Vec<SmallFile>> {
    let project = &app.config.project;
    let owner = owner_of(project)?;
    let mut files = Vec::new();
    let mut total = 0_u64;
    app.config
        .found
        .undeployed
        .iter()
        .for_each(|warning| JOURNAL.warn(warning));
    for path in &app.config.found.deployment {
        let name = path.to_string_lossy().into_owned();
        let file = project.join(path);
        let Ok(meta) = file.symlink_metadata() else { continue };
        let read = match () {
            () if !meta.is_file() => Err("it is no regular file".to_owned()),
            () if path.to_str().is_none() || name.len() > MAX_NAME => Err("its name is too long".to_owned()),
            () if total.saturating_add(meta.len()) > MAX_BYTES => Err("with it they would exceed 16 MiB".to_owned()),
            () => fs::read(&file).map_err(|error| format!("it cannot be read ({error})")),
        };
        let contents = match read {
            Ok(contents) => contents,
            Err(why) => {
                JOURNAL.warn(format_args!("{name} is not backed up with the deployment: {why}"));
                continue;
            }
        };
        total = total.saturating_add(contents.len() as u64);
        files.push(SmallFile {
            name,
            mode: meta.mode() & 0o777,
            owner: Some((meta.uid(), meta.gid())).filter(|own| *own != owner),
            contents,
        });
    }
    if let Some(key) = app.config.found.key.as_ref().filter(|_| app.config.key) {
        if !is_in_env_file(app, env, key) {
            files.retain(|file| file.name != KEY);
            files.push(SmallFile {
                name: KEY.to_owned(),
                mode: 0o600,
                owner: None,
                contents: key.reveal().as_bytes().to_vec(),
            });
        }
    }
    Ok(files)
}

/// The user and group of the project directory.
fn owner_of(project: &Path) -> Result<(u32, u32)> {
    let owner = project.metadata().map(|meta| (meta.uid(), meta.gid()));
    owner.with_context(|| format!("Cannot read {}", project.display()))
}

/// Whether the copy of `.env` holds the key where it is looked for.
fn is_in_env_file(app: &App, env: &[u8], key: &Secret) -> bool {
    matches!(credentials::key_of_env(&app.config.env_file(), env), Ok(Some(found)) if found.reveal() == key.reveal())
}

/// The files of an archive.
pub fn open(app: &App, file: &Path) -> Result<Vec<SmallFile>> {
    let mut chain = app.chain();
    let contents = read(&app.config, &mut chain, file)?;
    let archive = chain.collect("reading the deployment", contents, LIMIT + (1 << 20));
    unpack(&archive.get(&chain.finish()?)?)
}

/// n8n's key, where it is in the archive.
pub fn key(app: &App, file: &Path) -> Result<Option<Secret>> {
    let files = open(app, file)?;
    let key = files.into_iter().find(|file| file.name == KEY);
    key.map(|file| String::from_utf8(file.contents).map(|text| Secret::new(&text)))
        .transpose()
        .context("the key is not UTF-8")
}

/// The archive that was made together with a copy of `.env`.
pub fn beside(app: &App, file: &Path) -> Option<PathBuf> {
    let name = file.file_name()?.to_str()?;
    let stamp = Kind::Env.stamp_in(name)?;
    let there = app.store.list(Kind::Deployment).ok()?;
    there
        .into_iter()
        .find(|entry| entry.stamp == Some(stamp))
        .map(|entry| entry.path)
}

/// Whether an archive came from off-site and was not encrypted there.
pub fn may_be_anybodys(app: &App, file: &Path) -> Result<bool> {
    let point = inventory::point_of(&app.store, file)?;
    Ok(point.is_some_and(|(point, member)| point.may_be_anybodys(&member.name)))
}

/// An archive that has been verified, and how it differs from the files that are there.
pub struct Plan<'a> {
    app: &'a App,
    journal: Journal,
    missing: Vec<SmallFile>,
    differing: Vec<SmallFile>,
}

/// Verifies the archive and compares it with what is there. Changes nothing. Files that differ are replaced only where the
/// options say so.
///
/// # Errors
/// What is wrong with the archive; that it came from off-site and was not encrypted, where it can be anybody's.
pub fn prepare<'a>(app: &'a App, file: &Path, options: RestoreOptions, journal: Journal) -> Result<Plan<'a>> {
    ensure!(
        !may_be_anybodys(app, file)?,
        "{} was fetched from off-site and is not encrypted: a compose file decides what runs as root on this host, and \
         anybody may have written this one. Unpack it yourself (tar -xzf) after a look at it",
        file.display()
    );
    let files = check_recorded(&app.config, &app.store, file)
        .and_then(|()| open(app, file))
        .map_err(|error| match error.downcast_ref::<Locked>() {
            Some(_) => error,
            None => error.context("Backup file is corrupted or not an archive of a deployment"),
        })?;
    let mut plan = Plan {
        app,
        journal,
        missing: Vec::new(),
        differing: Vec::new(),
    };
    for file in files.into_iter().filter(|file| file.name != KEY) {
        plan.add(file)?;
    }
    if !options.replace_deployment {
        for file in plan.differing.drain(..) {
            journal.warn(format_args!(
                "{} differs from the backup and is left as it is (--replace-deployment replaces it)",
                file.name
            ));
        }
    }
    for file in &plan.differing {
        let path = app.config.project.join(&file.name);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        atomic::check_owner(&path, &format!(".{name}.restore-"))?;
    }
    Ok(plan)
}

impl Plan<'_> {
    /// Compares a file with what is there.
    fn add(&mut self, file: SmallFile) -> Result<()> {
        let path = self.app.config.project.join(&file.name);
        let in_the_way = |error: io::Error| {
            self.journal.warn(format_args!(
                "{} cannot be written ({error}): move away what stands in its place, and restore it again",
                path.display()
            ));
        };
        let differs = match atomic::read_if_there(&path, MAX_BYTES) {
            Ok(Some(contents)) => contents != file.contents,
            Ok(None) => {
                self.missing.push(file);
                return Ok(());
            }
            // It has grown since.
            Err(error) if error.kind() == ErrorKind::FileTooLarge => true,
            Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::NotADirectory) => {
                in_the_way(error);
                return Ok(());
            }
            Err(error) => return Err(error).with_context(|| format!("Cannot read {}", path.display())),
        };
        if differs {
            // What it leads to would be kept here.
            match atomic::check_link(&path) {
                Ok(()) => self.differing.push(file),
                Err(error) => in_the_way(error),
            }
        }
        Ok(())
    }

    /// What is going to be replaced.
    pub fn warnings(&self) -> Vec<String> {
        let names: Vec<&str> = self.differing.iter().map(|file| file.name.as_str()).collect();
        match names.is_empty() {
            true => Vec::new(),
            false => vec![format!(
                "This will replace {} in {}",
                names.join(" "),
                self.app.config.project.display()
            )],
        }
    }

    /// Writes the files; each that is replaced stays beside the new one.
    pub fn run(&self) -> Result<()> {
        let project = &self.app.config.project;
        let owner = owner_of(project)?;
        for file in self.missing.iter().chain(&self.differing) {
            let path = project.join(&file.name);
            let dir = path.parent().unwrap_or(project);
            // No link on the way leads out of the project, nor one that was planted meanwhile.
            let check = || {
                ensure!(
                    lies_in(project, dir),
                    "{} leads out of {}",
                    dir.display(),
                    project.display()
                );
                Ok(())
            };
            check()?;
            make_dir_as(dir, 0o755)?;
            check()?;
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let access = Access {
                mode: file.mode,
                owner: file.owner.or(Some(owner)),
            };
            keep(&path, &name)?;
            if fs::remove_dir(&path).is_ok() {
                self.journal.warn(format_args!(
                    "{} was an empty directory, as Docker makes for a missing file: containers that mount it are to be created \
                     again (docker compose up -d --force-recreate)",
                    path.display()
                ));
            }
            atomic::replace(
                &path,
                &format!(".{name}.restore-{}", std::process::id()),
                &file.contents,
                access,
            )?;
            self.journal.info(format_args!("Written: {}", path.display()));
            if let Some(lacks) = access.not_given(&path) {
                self.journal.warn(lacks);
            }
        }
        Ok(())
    }
}

/// Keeps a file that is about to be replaced beside it, if there is one: for its owner alone, whatever it holds by now.
fn keep(path: &Path, name: &str) -> Result<()> {
    let context = || format!("Cannot read {}", path.display());
    let mut file = match atomic::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound || path.is_dir() => return Ok(()),
        file => file.with_context(context)?,
    };
    let meta = file.metadata().with_context(context)?;
    let mut old = Vec::new();
    file.read_to_end(&mut old).with_context(context)?;
    let access = Access {
        mode: meta.mode() & 0o600,
        owner: Some((meta.uid(), meta.gid())),
    };
    let kept = |stamp| path.with_file_name(format!("{name}.before-restore-{stamp}"));
    atomic::create_dated(kept, &old, access)
        .map(drop)
        .with_context(|| format!("Cannot replace {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, lchown, symlink, PermissionsExt};

    use super::*;
    use crate::config::Config;
    use crate::store::atomic::own_user;
    use crate::testing::{skip, TempDir};

    fn empty(app: &App) -> Plan<'_> {
        Plan {
            app,
            journal: JOURNAL,
            missing: Vec::new(),
            differing: Vec::new(),
        }
    }

    fn small(name: &str) -> SmallFile {
        SmallFile {
            name: name.to_owned(),
            mode: 0o644,
            owner: None,
            contents: b"x".to_vec(),
        }
    }

    #[test]
    fn what_is_replaced_is_kept_for_its_owner_alone() {
        let dir = TempDir::new();
        let project = dir.path().canonicalize().unwrap();
        let app = App::new(Config::of_text(&project, Path::new(".env"), b"").unwrap());
        fs::create_dir(project.join("git")).unwrap();
        for name in ["compose.yml", "git/linked"] {
            fs::write(project.join(name), "a secret").unwrap();
        }
        let is_root = own_user() == Some(0);
        if is_root {
            chown(project.join("compose.yml"), Some(999), Some(998)).unwrap();
        }
        // One of our own is followed.
        symlink("git/linked", project.join("linked")).unwrap();
        let mut plan = empty(&app);
        for name in ["compose.yml", "linked"] {
            plan.add(small(name)).unwrap();
        }
        plan.run().unwrap();
        let kept = |name: &str| {
            let begin = format!("{name}.before-restore-");
            let mut files = fs::read_dir(&project).unwrap().flatten().map(|item| item.path());
            files.find(|path| path.file_name().unwrap().to_string_lossy().starts_with(&begin))
        };
        for name in ["compose.yml", "linked"] {
            let new = project.join(name).symlink_metadata().unwrap();
            assert!(new.is_file() && new.mode() & 0o777 == 0o644, "{name}");
            let kept = kept(name).unwrap();
            assert_eq!(fs::read(&kept).unwrap(), b"a secret");
            let meta = kept.symlink_metadata().unwrap();
            assert_eq!(meta.mode() & 0o777, 0o600, "{name}");
            if is_root && name == "compose.yml" {
                assert_eq!((meta.uid(), meta.gid()), (999, 998));
            }
        }
        if !is_root {
            return skip("deployment::what_is_replaced (a link of another user)", "it needs root");
        }
        let planted = project.join("planted");
        symlink("git/linked", &planted).unwrap();
        lchown(&planted, Some(999), Some(999)).unwrap();
        let mut plan = empty(&app);
        plan.add(small("planted")).unwrap();
        plan.run().unwrap();
        assert!(planted.is_symlink() && kept("planted").is_none());
    }

    #[test]
    fn nothing_is_made_where_a_link_leads_out() {
        let (dir, far) = (TempDir::new(), TempDir::new());
        let project = dir.path().canonicalize().unwrap();
        let app = App::new(Config::of_text(&project, Path::new(".env"), b"").unwrap());
        symlink(far.path(), project.join("sub")).unwrap();
        let missing = vec![small("sub/made/file")];
        let error = Plan { missing, ..empty(&app) }.run().unwrap_err();
        assert!(error.to_string().contains("leads out of"), "{error:#}");
        assert!(!far.path().join("made").exists());
    }

    #[test]
    fn what_docker_made_in_the_place_of_a_file_is_replaced() {
        let dir = TempDir::new();
        let project = dir.path().canonicalize().unwrap();
        let config = Config::of_text(&project, Path::new(".env"), b"").unwrap();
        let app = App::new(config);
        for made in ["init.sh", "full/own"] {
            fs::create_dir_all(project.join(made)).unwrap();
        }
        fs::write(project.join("file"), "").unwrap();
        symlink("init.sh", project.join("link")).unwrap();
        let mut plan = empty(&app);
        for name in ["init.sh", "full", "file/below", "link", "new"] {
            plan.add(small(name)).unwrap();
        }
        plan.run().unwrap();
        let read = |name: &str| fs::read(project.join(name)).unwrap_or_default();
        assert_eq!((read("init.sh"), read("new")), (b"x".to_vec(), b"x".to_vec()));
        assert!(project.join("full/own").is_dir() && project.join("link").is_symlink());
        assert_eq!(read("file"), b"");
    }

    /// Written by root, each file gets its user again; what belongs to the project's user goes to whoever that is then.
    #[test]
    fn owners_and_modes_come_back() {
        if own_user() != Some(0) {
            return skip("deployment::owners_and_modes_come_back", "it needs root");
        }
        let dir = TempDir::new();
        let project = dir.path().canonicalize().unwrap();
        let owner = |name: &str, user: u32, group: u32| chown(project.join(name), Some(user), Some(group)).unwrap();
        owner("", 1000, 1000);
        for (name, user, mode) in [
            ("in/compose.yaml", 1000, 0o644),
            ("key", 999, 0o400),
            ("root", 0, 0o600),
        ] {
            fs::create_dir_all(project.join("in")).unwrap();
            fs::write(project.join(name), name).unwrap();
            fs::set_permissions(project.join(name), fs::Permissions::from_mode(mode)).unwrap();
            owner(name, user, user);
        }
        let mut config = Config::of_text(&project, Path::new(".env"), b"").unwrap();
        config.found.deployment = ["in/compose.yaml", "key", "root", "."].map(PathBuf::from).into();
        let app = App::new(config);
        let missing = unpack(&pack(&collect(&app, b"").unwrap()).unwrap()).unwrap();
        assert_eq!(missing.len(), 3, "a directory is no file");
        fs::remove_dir_all(project.join("in")).unwrap();
        fs::remove_file(project.join("key")).unwrap();
        owner("", 1001, 1001);
        let plan = Plan { missing, ..empty(&app) };
        plan.run().unwrap();
        for (name, user, mode) in [
            ("in", 1001, 0o755),
            ("in/compose.yaml", 1001, 0o644),
            ("key", 999, 0o400),
            ("root", 0, 0o600),
        ] {
            let meta = project.join(name).metadata().unwrap();
            assert_eq!(
                (meta.uid(), meta.gid(), meta.mode() & 0o777),
                (user, user, mode),
                "{name}"
            );
        }
    }
}
