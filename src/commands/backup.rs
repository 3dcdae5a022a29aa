//! The backup of one component by itself; its row is the component's.

use std::path::Path;

use anyhow::Result;

use super::shared::{backup_one, open_stack};
use crate::cli::Call;
use crate::components::Component;

/// Backs the component up.
pub fn run(project: &Path, call: &Call, component: &dyn Component) -> Result<u8> {
    let app = open_stack(project, call)?;
    backup_one(&app, component, None).map(|()| 0)
}
