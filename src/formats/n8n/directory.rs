//! What workflows and credentials belong to: projects, folders, tags and users.

use std::collections::HashMap;
use std::sync::Arc;

use super::record::Record;
use super::tables::{Place, Table};
use crate::formats::pg_dump::{Column, TableName};

/// How deep folders may lie in each other.
const MAX_FOLDERS: usize = 100;

/// Projects, folders, tags and users of an n8n, and what belongs to them.
#[derive(Debug, Default)]
pub struct Directory {
    pub(super) place: Option<Place>,
    pub(super) columns: HashMap<Table, Arc<Vec<Column>>>,
    projects: HashMap<String, Record>,
    folders: HashMap<String, Record>,
    tags: HashMap<String, Record>,
    users: HashMap<String, Record>,
    keys: HashMap<String, Record>,
    workflow_shares: HashMap<String, Vec<Record>>,
    credential_shares: HashMap<String, Vec<Record>>,
    workflow_tags: HashMap<String, Vec<String>>,
}

impl Directory {
    /// Adds a row of a table that is kept here.
    pub(super) fn add(&mut self, table: Table, record: Record) {
        let id = |column: &str| record.text(column).to_owned();
        match table {
            Table::Project => drop(self.projects.insert(id("id"), record)),
            Table::Folder => drop(self.folders.insert(id("id"), record)),
            Table::Key => drop(self.keys.insert(id("id"), record)),
            Table::Tag => drop(self.tags.insert(id("id"), record)),
            Table::User => {
                // Not the hash of the password.
                let known = record.only(&["id", "email", "firstName", "lastName"]);
                self.users.insert(id("id"), known);
            }
            Table::SharedWorkflow => self.workflow_shares.entry(id("workflowId")).or_default().push(record),
            Table::SharedCredential => self
                .credential_shares
                .entry(id("credentialsId"))
                .or_default()
                .push(record),
            Table::WorkflowTag => self
                .workflow_tags
                .entry(id("workflowId"))
                .or_default()
                .push(id("tagId")),
            Table::Workflow | Table::History | Table::Credential => {}
        }
    }

    /// The name of a table in this database.
    pub fn table(&self, table: Table) -> TableName {
        let (schema, prefix) = match &self.place {
            Some(place) => (place.schema.as_str(), place.prefix.as_str()),
            None => ("public", ""),
        };
        TableName {
            schema: schema.to_owned(),
            name: format!("{prefix}{}", table.name()),
        }
    }

    /// Whether a table is there and has a column.
    pub fn has(&self, table: Table, column: &str) -> bool {
        let columns = self.columns.get(&table);
        columns.is_some_and(|columns| columns.iter().any(|known| known.name == column))
    }

    /// The key that a credential's data are encrypted under, wrapped by n8n's own; none where that is n8n's own.
    pub fn key(&self, data: &str) -> Option<&Record> {
        match data.split_once(':') {
            Some((id, _)) => self.keys.get(id),
            None => {
                let is_old = |key: &&Record| {
                    key.get("type") == Some("data_encryption") && key.get("algorithm") == Some("aes-256-cbc")
                };
                self.keys.values().find(is_old)
            }
        }
    }

    /// The keys of the database, the oldest first.
    pub(super) fn keys(&self) -> Vec<&Record> {
        let mut keys: Vec<&Record> = self.keys.values().collect();
        keys.sort_by_key(|key| (key.time("createdAt"), key.text("id")));
        keys.retain(|key| key.get("type") == Some("data_encryption"));
        keys
    }

    /// All tags.
    pub fn all_tags(&self) -> impl Iterator<Item = &Record> {
        self.tags.values()
    }

    /// The shares of a workflow.
    pub fn shares(&self, workflow: &str) -> &[Record] {
        self.workflow_shares.get(workflow).map_or(&[], Vec::as_slice)
    }

    /// The shares of a credential.
    pub fn credential_shares(&self, credential: &str) -> &[Record] {
        self.credential_shares.get(credential).map_or(&[], Vec::as_slice)
    }

    /// The tags of a workflow.
    pub fn tags(&self, workflow: &str) -> Vec<&Record> {
        let ids = self.workflow_tags.get(workflow).map_or(&[][..], Vec::as_slice);
        ids.iter().filter_map(|id| self.tags.get(id)).collect()
    }

    /// A project.
    pub fn project(&self, id: &str) -> Option<&Record> {
        self.projects.get(id)
    }

    /// All projects, by name.
    pub fn projects(&self) -> Vec<&Record> {
        let mut all: Vec<&Record> = self.projects.values().collect();
        all.sort_by_key(|project| (project.text("name"), project.text("id")));
        all
    }

    /// The project of a folder.
    pub fn folder_project(&self, id: &str) -> Option<&str> {
        self.folders.get(id)?.get("projectId")
    }

    /// Whose a workflow is: its project, or before n8n had these, its user.
    pub fn owner(&self, workflow: &str) -> Option<&str> {
        owner(&self.projects, &self.users, self.shares(workflow))
    }

    /// Whose a credential is.
    pub fn credential_owner(&self, credential: &str) -> Option<&str> {
        owner(&self.projects, &self.users, self.credential_shares(credential))
    }

    /// The names of a folder and of those that it lies in, the outermost first.
    pub fn folder(&self, id: &str) -> Vec<&str> {
        let mut names = Vec::new();
        let mut next = self.folders.get(id);
        while let Some(folder) = next.filter(|_| names.len() < MAX_FOLDERS) {
            names.push(folder.text("name"));
            next = folder.get("parentFolderId").and_then(|parent| self.folders.get(parent));
        }
        names.reverse();
        names
    }
}

fn owner<'a>(
    projects: &'a HashMap<String, Record>,
    users: &'a HashMap<String, Record>,
    shares: &[Record],
) -> Option<&'a str> {
    let owning = shares.iter().find(|share| share.text("role").ends_with(":owner"));
    let share = owning.or(shares.first())?;
    let project = share.get("projectId").and_then(|id| projects.get(id)?.get("name"));
    project.or_else(|| users.get(share.get("userId")?)?.get("email"))
}
