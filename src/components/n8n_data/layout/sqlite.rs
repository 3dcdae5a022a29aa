//! Where n8n's database in SQLite lies in n8n's data.

use std::path::Path;

use super::{data_layout, Directory, Layout};
use crate::app::App;
use crate::engine::{Docker, DATA_MOUNT};

/// Whether n8n's database in SQLite lies in what a restore of n8n's data replaces, which is to leave it as it is. Where
/// the layout is an error, that is told by itself.
pub fn holds_database(app: &App, docker: &Docker) -> bool {
    let layout = || data_layout(app, docker, &app.n8n_containers(docker)?);
    layout().is_ok_and(|layout| layout.database_place(app).is_some())
}

impl Layout {
    /// Where a helper container that writes sees the directory that holds n8n's database in SQLite, if one does, and
    /// the name of the database in there.
    pub fn database_place(&self, app: &App) -> Option<(String, String)> {
        let file = app.config.found.sqlite.as_ref()?;
        let place = match self.database(&file.path) {
            Some((directory, within)) => (directory.target, within),
            // The containers are gone that would tell.
            None if self.home.at.is_empty() => (DATA_MOUNT.to_owned(), file.in_home.clone()),
            None => return None,
        };
        (!place.1.is_empty()).then_some(place)
    }

    /// The directory that holds n8n's database in SQLite, if one does, with its name in there. It is backed up by itself.
    pub fn database(&self, file: &str) -> Option<(Directory, String)> {
        let within = self.within.iter().map(|(inner, there)| (&inner.at, there));
        let mounted = self.places().map(|place| (&place.at, &place.at)).chain(within);
        let mounted = mounted.filter_map(|(at, there)| {
            let rest = Path::new(file).strip_prefix(at).ok()?;
            Some((at.len(), Path::new(there).join(rest)))
        });
        let (_, file) = mounted.max_by_key(|(length, _)| *length)?;
        let holds = |directory: &Directory| {
            let at = Path::new(&directory.place.at);
            let within = file.strip_prefix(at).ok()?;
            let within = within.display().to_string();
            (at.is_absolute() && !within.is_empty()).then(|| (directory.clone(), within))
        };
        let found = self.directories().iter().filter_map(holds).collect::<Vec<_>>();
        found.into_iter().min_by_key(|(_, within)| within.len())
    }
}
