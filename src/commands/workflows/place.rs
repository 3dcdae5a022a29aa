//! Where a workflow or a credential that is put back belongs: its project and its folder.

use std::sync::Arc;

use anyhow::{ensure, Context as _, Result};

use crate::formats::n8n::{Directory, Record, Table};
use crate::formats::text::ascii;
use crate::process::hinted;
use crate::report::log::Journal;

/// The shares that are added: none of what is there now, else those of the backup with whom is there, or one for
/// `project`. Before n8n had projects, a share named a user.
pub fn shares(
    journal: Journal,
    backup: &[Record],
    now: &Directory,
    (table, id, is_there): (Table, &str, bool),
    project: Option<&str>,
) -> Result<Vec<Record>> {
    let (column, role, hint) = match table {
        Table::SharedCredential => ("credentialsId", "credential:owner", "move it in n8n"),
        _ => ("workflowId", "workflow:owner", "move it in n8n, or take --as-copy"),
    };
    if is_there {
        ensure!(
            project.is_none(),
            hinted("It is there and stays in its project, so --project is not for it", hint)
        );
        return Ok(Vec::new());
    }
    let mut shares = backup.to_vec();
    // Without an owner nobody would see it.
    if now.has(table, "projectId") && (shares.is_empty() || !shares.iter().all(|share| share.has("projectId"))) {
        ensure!(project.is_some(), no_place("project", now));
        let mut owning = Record::new(Arc::default(), Vec::new());
        owning.add(column, None);
        owning.add("projectId", None);
        owning.add("role", Some(role.to_owned()));
        shares = vec![owning];
    }
    if let Some(project) = project {
        let owning = shares.iter().position(|share| share.text("role").ends_with(":owner"));
        let owning = shares.get(owning.unwrap_or(0)).cloned();
        let mut owning = owning.context("The backup tells of no owner")?;
        owning.set("projectId", Some(project.to_owned()));
        shares = vec![owning];
    }
    // Others may be gone; whom it belongs to may not.
    shares.retain(|share| {
        let project = share.get("projectId").filter(|project| now.project(project).is_none());
        let gone = project.filter(|_| !share.text("role").ends_with(":owner"));
        if let Some(gone) = gone {
            journal.warn(format_args!(
                "It will not be shared with project {}, which is not there now",
                ascii(gone)
            ));
        }
        gone.is_none()
    });
    ensure!(backup.is_empty() || !shares.is_empty(), no_place("project", now));
    for share in &mut shares {
        share.set(column, Some(id.to_owned()));
        if let Some(project) = share.get("projectId") {
            ensure!(
                now.project(project).is_some(),
                no_place(&format!("project {project}"), now)
            );
        }
    }
    Ok(shares)
}

/// Sees to it that the workflow's folder is there, in the project of its owner, or that it is in none.
pub fn check_folder(workflow: &mut Record, now: &Directory, shares: &[Record], project: Option<&str>) -> Result<()> {
    let Some(folder) = workflow.get("parentFolderId") else {
        return Ok(());
    };
    let owning = shares.iter().find(|share| share.text("role").ends_with(":owner"));
    let owning = owning.and_then(|share| share.get("projectId"));
    let (is_fit, its) = match now.folder_project(folder) {
        Some(home) => (owning == Some(home), " of its project"),
        None => (false, ""),
    };
    ensure!(
        project.is_some() || is_fit,
        no_place(&format!("folder {folder}{its}"), now)
    );
    if project.is_some() {
        workflow.set("parentFolderId", None);
    }
    Ok(())
}

fn no_place(what: &str, now: &Directory) -> anyhow::Error {
    let projects = now.projects().into_iter();
    let projects: Vec<String> = projects
        .map(|project| format!("{} ({})", ascii(project.text("id")), ascii(project.text("name"))))
        .collect();
    hinted(
        format!("The {} that it belongs to is not there now", ascii(what)),
        format!("name a project by --project: {}", projects.join(", ")),
    )
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::hint_of;

    #[test]
    fn what_is_there_goes_into_no_other_project() {
        let now = Directory::default();
        for (table, wanted) in [
            (Table::SharedWorkflow, "move it in n8n, or take --as-copy"),
            (Table::SharedCredential, "move it in n8n"),
        ] {
            let shares = |project| shares(Journal::new("test"), &[], &now, (table, "a", true), project);
            assert!(shares(None).unwrap().is_empty());
            let error = shares(Some("other")).unwrap_err();
            assert_eq!(hint_of(&error), Some(wanted));
        }
    }
}
