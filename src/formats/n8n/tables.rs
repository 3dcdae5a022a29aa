//! Where n8n's tables are: in any schema, with any prefix (`DB_TABLE_PREFIX`).

use anyhow::{bail, Result};

use crate::formats::pg_dump::{Column, TableName};

/// A table that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    Credential,
    Key,
    Folder,
    Project,
    SharedCredential,
    SharedWorkflow,
    Tag,
    User,
    Workflow,
    History,
    WorkflowTag,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Credential,
        Self::Key,
        Self::Folder,
        Self::Project,
        Self::SharedCredential,
        Self::SharedWorkflow,
        Self::Tag,
        Self::User,
        Self::Workflow,
        Self::History,
        Self::WorkflowTag,
    ];

    /// Whether its rows are held, and not given to a visitor.
    pub fn is_small(self) -> bool {
        !matches!(self, Self::Workflow | Self::History | Self::Credential)
    }

    /// Its name without the prefix.
    pub fn name(self) -> &'static str {
        match self {
            Self::Credential => "credentials_entity",
            Self::Key => "deployment_key",
            Self::Folder => "folder",
            Self::Project => "project",
            Self::SharedCredential => "shared_credentials",
            Self::SharedWorkflow => "shared_workflow",
            Self::Tag => "tag_entity",
            Self::User => "user",
            Self::Workflow => "workflow_entity",
            Self::History => "workflow_history",
            Self::WorkflowTag => "workflows_tags",
        }
    }
}

/// The schema of n8n's tables, and what their names begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub schema: String,
    pub prefix: String,
}

impl Place {
    /// Finds the table of workflows among those of a database.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn find(tables: &[(TableName, Vec<Column>)]) -> Result<Self> {
        let found: Vec<(&TableName, &str)> = tables
            .iter()
            .filter(|(_, columns)| {
                let has = |name: &&str| columns.iter().any(|column| column.name == *name);
                ["id", "name", "nodes", "connections"].iter().all(has)
            })
            .filter_map(|(table, _)| Some((table, table.name.strip_suffix(Table::Workflow.name())?)))
            .collect();
        match found[..] {
            [] => bail!(
                "it is not a database of n8n: no table workflow_entity with the columns id, name, nodes and connections"
            ),
            [(table, prefix)] => Ok(Self {
                schema: table.schema.clone(),
                prefix: prefix.to_owned(),
            }),
            _ => {
                let names: Vec<String> = found.iter().map(|(table, _)| table.to_string()).collect();
                bail!(
                    "more than one n8n keeps its workflows in this database: {}",
                    names.join(", ")
                )
            }
        }
    }

    /// Which of n8n's tables a table is.
    pub fn table(&self, table: &TableName) -> Option<Table> {
        let name = table.name.strip_prefix(&self.prefix)?;
        Table::ALL
            .into_iter()
            .find(|known| table.schema == self.schema && known.name() == name)
    }
}
