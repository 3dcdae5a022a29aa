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

/// Tables of n8n beside those that are read.
const OTHERS: [&str; 4] = ["execution_entity", "migrations", "settings", "webhook_entity"];

/// The schema of n8n's tables, and what their names begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub schema: String,
    pub prefix: String,
}

impl Place {
    /// Where n8n's tables are together, in one schema and with one prefix: a copy of one of them, as
    /// `old_workflow_entity`, has few of the others beside it. Several are several n8n, or a copy of all.
    pub fn all(tables: &[&TableName]) -> Vec<Self> {
        let places = Self::possible(tables);
        let held: Vec<usize> = places.iter().map(|place| place.count(tables)).collect();
        let most = held.iter().copied().max().unwrap_or_default();
        let held = places.into_iter().zip(held);
        // Versions of n8n differ by a few.
        held.filter(|(_, count)| count * 2 >= most)
            .map(|(place, _)| place)
            .collect()
    }

    /// Wherever a table has the name of one of n8n's.
    fn possible(tables: &[&TableName]) -> Vec<Self> {
        let mut places: Vec<Self> = Vec::new();
        for table in tables {
            for end in [Table::Workflow, Table::Credential] {
                let Some(prefix) = table.name.strip_suffix(end.name()) else {
                    continue;
                };
                let place = Self {
                    schema: table.schema.clone(),
                    prefix: prefix.to_owned(),
                };
                if !places.contains(&place) {
                    places.push(place);
                }
            }
        }
        places
    }

    /// How many of n8n's tables are there.
    fn count(&self, tables: &[&TableName]) -> usize {
        Self::known().filter(|name| self.holds(name, tables)).count()
    }

    /// The tables of n8n that are known, without their prefix.
    fn known() -> impl Iterator<Item = &'static str> {
        Table::ALL.map(Table::name).into_iter().chain(OTHERS)
    }

    /// What they are called there.
    pub fn names(&self) -> Vec<String> {
        Self::known().map(|name| format!("{}{name}", self.prefix)).collect()
    }

    /// Whether the table `name` of n8n's is among these.
    pub fn holds(&self, name: &str, tables: &[&TableName]) -> bool {
        tables
            .iter()
            .any(|table| table.schema == self.schema && table.name.strip_prefix(&self.prefix) == Some(name))
    }

    /// Finds the place among the tables of a database, where one is of workflows: of several n8n the one that is
    /// `told`.
    ///
    /// # Errors
    /// There is none, or more than one n8n.
    pub fn find(tables: &[(TableName, Vec<Column>)], told: Option<&Self>) -> Result<Self> {
        let is_readable = |columns: &[Column]| {
            let has = |name: &&str| columns.iter().any(|column| column.name == *name);
            ["id", "name", "nodes", "connections"].iter().all(has)
        };
        let names = tables
            .iter()
            .filter(|(table, columns)| !table.name.ends_with(Table::Workflow.name()) || is_readable(columns));
        let names: Vec<&TableName> = names.map(|(table, _)| table).collect();
        let holds = |place: &Self| place.holds(Table::Workflow.name(), &names);
        // An old n8n has few of the tables that a new one has.
        let mut possible = Self::possible(&names).into_iter();
        if let Some(place) = possible.find(|place| holds(place) && told == Some(place)) {
            return Ok(place);
        }
        let mut found = Self::all(&names);
        found.retain(holds);
        match &found[..] {
            [] => bail!(
                "it is not a database of n8n: no table workflow_entity with the columns id, name, nodes and connections"
            ),
            [place] => Ok(place.clone()),
            _ => {
                let names = found.iter().map(|place| place.name_of(Table::Workflow).to_string());
                bail!(
                    "more than one n8n keeps its workflows in this database: {}",
                    names.collect::<Vec<_>>().join(", ")
                )
            }
        }
    }

    /// The name of one of n8n's tables there.
    pub fn name_of(&self, table: Table) -> TableName {
        TableName {
            schema: self.schema.clone(),
            name: format!("{}{}", self.prefix, table.name()),
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
