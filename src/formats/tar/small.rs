//! Archives of a few small files, held in memory: written as [`header_of`] has it, and read as they are written.

use anyhow::{bail, ensure, Context as _, Result};

use super::header::{header_name, header_of, owner_in, until_nul};
use super::BLOCK;

/// A file of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmallFile {
    /// Its path, at most 100 bytes long.
    pub name: String,
    /// Its permissions.
    pub mode: u32,
    /// Its user and group, where they are not those of the directory that it is unpacked into.
    pub owner: Option<(u32, u32)>,
    /// What it holds.
    pub contents: Vec<u8>,
}

/// An archive of these files.
pub fn pack(files: &[SmallFile]) -> Result<Vec<u8>> {
    let mut archive = Vec::new();
    for file in files {
        let bytes = file.contents.len() as u64;
        archive.extend(header_of(&file.name, bytes, file.mode, file.owner)?);
        archive.extend_from_slice(&file.contents);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    archive.resize(archive.len() + 2 * BLOCK, 0);
    Ok(archive)
}

/// The files of an archive that [`pack`] has written. Anything else in it is refused: links, directories, names that lead
/// out of where it is unpacked.
pub fn unpack(mut archive: &[u8]) -> Result<Vec<SmallFile>> {
    let mut files = Vec::new();
    loop {
        let header = archive.get(..BLOCK).context("the archive is cut off")?;
        if header.iter().all(|byte| *byte == 0) {
            ensure!(
                archive.iter().all(|byte| *byte == 0),
                "something follows the end of the archive"
            );
            return Ok(files);
        }
        let name = String::from_utf8(header_name(header)).context("a name is not UTF-8")?;
        let number = |from: usize, to: usize| -> Result<u64> {
            let text = std::str::from_utf8(until_nul(&header[from..to])).unwrap_or_default();
            u64::from_str_radix(text.trim(), 8).with_context(|| format!("{name}: the header is damaged"))
        };
        let leads_out =
            name.is_empty() || name.starts_with('/') || name.split('/').any(|part| matches!(part, "" | "." | ".."));
        if header[156] != b'0' || leads_out {
            bail!("{name} is no plain file below the directory");
        }
        let length = usize::try_from(number(124, 136)?)?;
        let contents = archive
            .get(BLOCK..BLOCK.saturating_add(length))
            .context("the archive is cut off")?;
        let mode = u32::try_from(number(100, 108)?)? & 0o777;
        let owner = owner_in(header);
        archive = archive
            .get(BLOCK + length.next_multiple_of(BLOCK)..)
            .context("the archive is cut off")?;
        let contents = contents.to_vec();
        files.push(SmallFile {
            name,
            mode,
            owner,
            contents,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::tar::Scanner;

    fn file(name: &str, contents: &[u8]) -> SmallFile {
        SmallFile {
            name: name.to_owned(),
            mode: 0o640,
            owner: None,
            contents: contents.to_vec(),
        }
    }

    #[test]
    fn what_is_packed_is_unpacked_and_is_a_tar_archive() {
        let files = [
            file("compose.yaml", b"services:\n"),
            file("a/b", &[7; 512]),
            file("empty", b""),
        ];
        let owners = [(0, 0), (0, 5), (999, 1000), (4_000_000_000, 0)];
        let owned = owners.map(|owner| SmallFile {
            owner: Some(owner),
            ..file("owned", b"x")
        });
        let files = [&files[..], &owned].concat();
        let archive = pack(&files).unwrap();
        assert_eq!(unpack(&archive).unwrap(), files);
        let mut scanner = Scanner::new();
        scanner.feed(&archive).unwrap();
        assert_eq!(scanner.finish().unwrap().files, 7);
        assert!(unpack(&pack(&[]).unwrap()).unwrap().is_empty());
    }

    #[test]
    fn what_is_cut_off_or_leads_out_is_refused() {
        let archive = pack(&[file("a", b"x")]).unwrap();
        for end in [0, 300, 512, 513, 1024, 1500] {
            assert!(unpack(&archive[..end]).is_err(), "{end}");
        }
        for name in ["/etc/cron.d/x", "../x", "a/../../x", "./x", "a//b"] {
            assert!(unpack(&pack(&[file(name, b"x")]).unwrap()).is_err(), "{name}");
        }
        let mut link = archive.clone();
        link[156] = b'2';
        assert!(unpack(&link).is_err());
    }
}
