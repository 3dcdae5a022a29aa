//! Opening files that must be files. What stands in the place of one (a named pipe, a device, a link to one) is an error: to
//! open or read it could take for ever, with a lock held.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// `O_NONBLOCK` of Linux. It is there for what takes the place of the file while that is opened; on the few processors where
/// Linux has another number for it (MIPS, SPARC), this one changes nothing.
pub const NONBLOCK: i32 = 0o4000;

/// Opens a regular file, or a link to one, for reading.
///
/// # Errors
/// When it cannot be opened, or is something else.
pub fn open(path: &Path) -> io::Result<File> {
    check(path.metadata()?.is_file())?;
    let file = OpenOptions::new().read(true).custom_flags(NONBLOCK).open(path)?;
    check(file.metadata()?.is_file())?;
    Ok(file)
}

/// The text of a regular file of at most `limit` bytes.
///
/// # Errors
/// As for [`open`], and when it is longer or no text.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    let mut text = String::new();
    open(path)?.take(limit.saturating_add(1)).read_to_string(&mut text)?;
    if text.len() as u64 > limit {
        return Err(io::Error::new(
            ErrorKind::FileTooLarge,
            format!("it is longer than {limit} bytes"),
        ));
    }
    Ok(text)
}

/// Says what is wrong where something is not of the kind that it must be.
///
/// # Errors
/// Unless `is_right`.
pub fn check(is_right: bool) -> io::Result<()> {
    match is_right {
        true => Ok(()),
        false => Err(io::Error::new(
            ErrorKind::InvalidInput,
            "it is not a regular file: remove it",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;
    use crate::testing::TempDir;

    #[test]
    fn what_is_no_file_is_an_error_and_not_waited_for() {
        let dir = TempDir::new();
        let at = |name: &str| dir.path().join(name);
        assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        symlink("pipe", at("to-pipe")).unwrap();
        symlink("/dev/zero", at("zero")).unwrap();
        for name in ["pipe", "to-pipe", "zero", "."] {
            let error = open(&at(name)).unwrap_err().to_string();
            assert!(error.contains("not a regular file"), "{name}: {error}");
        }
        assert_eq!(open(&at("missing")).unwrap_err().kind(), ErrorKind::NotFound);
        fs::write(at("file"), "12345").unwrap();
        symlink("file", at("link")).unwrap();
        assert_eq!(read_text(&at("link"), 5).unwrap(), "12345");
        assert_eq!(read_text(&at("file"), 4).unwrap_err().kind(), ErrorKind::FileTooLarge);
    }
}
