//! The drill of a database: it is unpacked onto a volume of its own, proven there, and counted.

use std::path::Path;
use std::process::Command;

use anyhow::{ensure, Context as _, Result};

use super::node::Node;
use super::{rows, verify, ROWS};
use crate::components::drill::{
    check_recorded, explain, DrillEnv, Drilled, Inconclusive, Migrations, RecoveredDatabase, Stopwatch,
};
use crate::components::n8n_image;
use crate::engine::{ScratchContainer, DATA_MOUNT};
use crate::process::hinted;

/// A database that was unpacked.
struct Unpacked<'a> {
    env: &'a DrillEnv<'a>,
    container: ScratchContainer,
    file: String,
}

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
    };
    let node = unpacked.node();
    let contents = node
        .copy_in(file, &unpacked.file)
        .and_then(|()| node.examine(&unpacked.file))
        .map_err(|error| explain(error, "n8n", &env.app.config.drill_memory))?;
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
    fn node(&self) -> Node<'_> {
        Node {
            app: self.env.app,
            docker: &self.env.docker,
            container: self.container.id(),
        }
    }
}

impl RecoveredDatabase for Unpacked<'_> {
    fn sealed(&self) -> Result<(Command, &'static str)> {
        Ok((self.node().sealed(&self.file), ""))
    }

    fn migrations(&self) -> Result<Option<Migrations>> {
        self.node().migrations(&self.file)
    }

    fn binary_files(&self) -> Result<Vec<String>> {
        self.node().binary_files(&self.file)
    }
}
