//! SQL of the zero-loss restore: pure functions that build `psql` scripts and read their answers.
//!
//! The dump is loaded into a *staged* database, which then takes the live name in one transaction while the live
//! one gets an *old* name. Until that transaction commits nothing that is committed differs from before, so death
//! at any moment leaves a whole database under the live name, accepting connections.
//!
//! Scripts are for PostgreSQL 12 to 18 and go to the standard input of `psql` with [`PSQL_FLAGS`], connected by
//! [`conninfo`] to one of [`maintenance_databases`], or to the staged database where the function says so. Answers
//! are lines of tab-separated fields in which every name is hex of its UTF-8, so that no name can break a line.

mod deactivate;
mod load;
mod loader;
mod server;
mod swap;
#[cfg(test)]
mod tests;
mod text;

pub use deactivate::*;
pub use load::*;
pub use loader::*;
pub use server::*;
pub use swap::*;
pub use text::*;
