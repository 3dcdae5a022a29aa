//! Bytes on their way to a file and back.

pub mod checksum;
pub mod compress;
pub mod encrypt;
pub mod publish;
pub mod read;

use anyhow::Result;

use crate::formats::{pg_dump, rdb, sqlite, tar};
use crate::process::Observer;

impl Observer for pg_dump::Scanner {
    fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        Self::feed(self, chunk)
    }
}

impl<S: pg_dump::Sink + Send + 'static> Observer for pg_dump::Rows<S> {
    fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        Self::feed(self, chunk)
    }
}

impl Observer for tar::Scanner {
    fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        Self::feed(self, chunk)
    }
}

impl Observer for rdb::Scanner {
    fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        Self::feed(self, chunk)
    }
}

impl Observer for sqlite::Scanner {
    fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        Self::feed(self, chunk);
        Ok(())
    }
}
