//! The drill of a database: it is unpacked onto a volume of its own, proven there, and counted.

use std::cell::Cell;
use std::path::Path;
use std::process::Command;

use anyhow::{ensure, Context as _, Result};

use super::node::Node;
use super::{rows, verify, ROWS};
use crate::components::drill::{
    check_recorded, Access, DrillEnv, Drilled, Inconclusive, Migrations, RecoveredDatabase, Stopwatch,
};
use crate::components::n8n_image::{self, N8nImage};
use crate::engine::{Exec, ScratchContainer, DATA_MOUNT};
use crate::formats::n8n::Place;
use crate::process::hinted;

/// A database that was unpacked.
struct Unpacked<'a> {
    env: &'a DrillEnv<'a>,
    container: ScratchContainer,
    file: String,
    bytes: u64,
    /// Where n8n's tables were, as the point remembers.
    place: Option<Place>,
}

/// Tells whether anything was written.
const LOOK: &str = "stat -c '%n %s %Y' \"$1\"/*";

/// Unpacks the database and compares tables and rows with the manifest.
///
/// # Errors
/// What differs or fails; with [`Inconclusive`] when the test could not be made.
pub fn drill<'a>(env: &'a DrillEnv<'a>, file: &Path) -> Result<Drilled<'a>> {
    let watch = Stopwatch::start();
    let packed = verify(env.app, file)?;
    let image = n8n_image::find(env.app, &env.docker, env.point).context(Inconclusive)?;
    let image = image
        .with_context(|| hinted("n8n's image, which reads the database, is not on this host", "pull it"))
        .context(Inconclusive)?
        .id;
    env.check_room(&image, packed.bytes)?;
    let container = env.helper(&image, None)?;
    let unpacked = Unpacked {
        env,
        container,
        file: format!("{DATA_MOUNT}/database.sqlite"),
        bytes: packed.bytes,
        place: env.recorded_place(),
    };
    let node = unpacked.node();
    let contents = node
        .copy_in(file, &unpacked.file)
        .and_then(|()| node.examine(&unpacked.file))?;
    ensure!(
        contents.length == packed.bytes,
        "{} bytes were unpacked, and the file holds {}",
        contents.length,
        packed.bytes
    );
    ensure!(!contents.tables.is_empty(), "the database holds no table");
    check_recorded(env.point, ROWS, &[""], &rows(&contents).collect::<Vec<_>>())?;
    let what = format!("{} tables, {} rows", contents.tables.len(), contents.rows());
    Ok(watch.drilled(what).with_database(Box::new(unpacked)))
}

impl Unpacked<'_> {
    /// Runs a script in the directory of the database.
    fn sh(&self, script: &str) -> Result<()> {
        let argv = ["sh", "-c", &format!("cd \"$1\" && {script}"), "sh", DATA_MOUNT];
        let docker = &self.env.docker;
        let output = docker.answer("sh", docker.exec(self.container.id(), Exec::default(), &argv), None)?;
        ensure!(output.success, "{}", output.stderr);
        Ok(())
    }

    fn node(&self) -> Node<'_> {
        let node = Node::new(self.env.app, &self.env.docker, self.container.id());
        Node {
            // The point tells of its own time.
            prefix: self.place.as_ref().map(|place| &*place.prefix).or(node.prefix),
            ..node
        }
    }
}

impl RecoveredDatabase for Unpacked<'_> {
    fn sealed(&self) -> Result<(Command, String)> {
        Ok((self.node().sealed(&self.file), String::new()))
    }

    fn migrations(&self) -> Result<Option<Migrations>> {
        self.node().migrations(&self.file)
    }

    fn binary_files(&self) -> Result<Vec<String>> {
        self.node().binary_files(&self.file)
    }

    fn container(&self) -> &str {
        self.container.id()
    }

    fn let_in(&self, n8n: &N8nImage) -> Result<Access> {
        // A migration copies tables, and n8n's user need not be that of the stack's n8n.
        self.env.check_room(&n8n.id, self.bytes)?;
        self.sh("chmod a+rwx . && chmod a+rw -- *")?;
        let mut variables = vec![
            ("DB_TYPE", "sqlite".to_owned()),
            ("DB_SQLITE_DATABASE", self.file.clone()),
        ];
        let prefix = self.place.as_ref().map(|place| place.prefix.clone());
        variables.extend(prefix.map(|prefix| ("DB_TABLE_PREFIX", prefix)));
        Ok(Access {
            variables,
            by_files: true,
        })
    }

    fn forget(&self, credentials: &[String]) -> Result<()> {
        self.node().forget(&self.file, credentials)
    }

    fn busy(&self) -> Result<Box<dyn Fn() -> bool + Send>> {
        let docker = self.env.docker.clone();
        let container = self.container.id().to_owned();
        let last = Cell::new(String::new());
        // What n8n works on grows, or is written anew.
        Ok(Box::new(move || {
            let look = docker.exec(&container, Exec::default(), &["sh", "-c", LOOK, "sh", DATA_MOUNT]);
            let now = docker.answer("stat", look, None).map(|output| output.text());
            now.is_ok_and(|now| last.replace(now.clone()) != now)
        }))
    }
}
