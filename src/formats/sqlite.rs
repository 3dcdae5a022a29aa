//! Databases of SQLite, read as a stream.
//!
//! The header, of 100 bytes, tells the size of a page (offset 16, two bytes, 1 for 65536) and their number (offset 28, four
//! bytes), which counts where the change counter (24) and the one that it was written with (92) are equal. Numbers are big-endian.

use anyhow::{bail, ensure, Result};

const MAGIC: &[u8; 16] = b"SQLite format 3\0";
const HEADER: usize = 100;

/// What is known of a whole database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its length in bytes.
    pub bytes: u64,
    /// The length of a page.
    pub page: u64,
}

/// Reads a database and proves that it is as long as its header says.
#[derive(Debug, Default)]
pub struct Scanner {
    head: Vec<u8>,
    bytes: u64,
}

impl Scanner {
    /// Takes the next bytes, cut anywhere.
    pub fn feed(&mut self, chunk: &[u8]) {
        let room = HEADER - self.head.len();
        self.head.extend_from_slice(&chunk[..room.min(chunk.len())]);
        self.bytes += chunk.len() as u64;
    }

    /// What was read.
    ///
    /// # Errors
    /// That it is no database, or not a whole one.
    pub fn finish(&self) -> Result<Summary> {
        let number = |at: usize| -> u32 {
            let bytes = self.head.get(at..at + 4).unwrap_or_default();
            bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
        };
        ensure!(self.bytes > 0, "there is nothing in it");
        if self.head.len() < HEADER || !self.head.starts_with(MAGIC) {
            bail!("it is no database of SQLite, or an encrypted one");
        }
        let page = match number(16) >> 16 {
            1 => 65536,
            page if page >= 512 && page.is_power_of_two() => u64::from(page),
            page => bail!("its pages have an impossible size: {page}"),
        };
        ensure!(number(24) == number(92), "its header does not tell its length");
        let expected = u64::from(number(28)) * page;
        ensure!(
            self.bytes == expected,
            "it has {} bytes, and by its header {expected}",
            self.bytes
        );
        Ok(Summary {
            bytes: self.bytes,
            page,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database of `pages` pages, as far as the scanner looks.
    fn database(page: u16, pages: u32, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        bytes[..16].copy_from_slice(MAGIC);
        bytes[16..18].copy_from_slice(&page.to_be_bytes());
        bytes[28..32].copy_from_slice(&pages.to_be_bytes());
        bytes
    }

    fn scan(bytes: &[u8], step: usize) -> Result<Summary> {
        let mut scanner = Scanner::default();
        for chunk in bytes.chunks(step) {
            scanner.feed(chunk);
        }
        scanner.finish()
    }

    #[test]
    fn a_whole_database_is_as_long_as_its_header_says() {
        for (page, pages, length) in [(512, 3, 1536), (4096, 1, 4096), (1, 2, 131_072)] {
            let bytes = database(page, pages, length);
            for step in [1, 99, 100, 101, length] {
                let summary = scan(&bytes, step).unwrap();
                assert_eq!(summary.bytes, length as u64);
                assert_eq!(summary.page * u64::from(pages), length as u64);
            }
            assert!(scan(&bytes[..length - 1], 1000).is_err());
            let mut longer = bytes.clone();
            longer.push(0);
            assert!(scan(&longer, 1000).is_err());
        }
    }

    #[test]
    fn what_is_no_database_is_refused() {
        let text = |bytes: &[u8]| scan(bytes, 7).unwrap_err().to_string();
        assert!(text(b"").contains("nothing"));
        assert!(text(b"SQLite format 3\0").contains("no database"));
        assert!(text(&[7; 4096]).contains("no database"));
        assert!(text(&database(1000, 1, 1000)).contains("impossible"));
        let mut old = database(512, 1, 512);
        old[27] = 1;
        assert!(text(&old).contains("does not tell"));
    }
}
