//! The drill of a database: it is unpacked onto a volume of its own, proven there, and counted.

use std::path::Path;

use anyhow::{ensure, Context as _, Result};

use super::node::Node;
use super::{database, rows, verify, ROWS, SETTING};
use crate::components::credentials::Stored;
use crate::components::drill::{check_recorded, explain, CredentialStore, DrillEnv, Drilled, Inconclusive, Stopwatch};
use crate::engine::{ScratchContainer, DATA_MOUNT};

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
    let of = database(env.app).context(Inconclusive)?;
    let image = env.image_of(&of.container, SETTING)?;
    env.check_room(&image, packed.bytes)?;
    let mut container = env.helper(&image)?;
    container.start().context(Inconclusive)?;
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
    Ok(watch.drilled(what).with_credentials(Box::new(unpacked)))
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

impl CredentialStore for Unpacked<'_> {
    fn credentials(&self) -> Result<Vec<Stored>> {
        self.node().credentials(&self.file)
    }
}
