//! Headers: what they say, and one of our own.

use anyhow::{bail, Result};

use super::BLOCK;

/// Where the name of the user stands.
const USER: usize = 265;
const ROOT: &str = "root";

/// The header of a regular file of `bytes` bytes, owned by root, with the permissions `mode`, as POSIX (ustar) has it.
pub fn file_header(name: &str, bytes: u64, mode: u32) -> Result<Vec<u8>> {
    header_of(name, bytes, mode, None)
}

/// As [`file_header`], of a file of this user and group. Only where one is given does it have a name of root.
pub(super) fn header_of(name: &str, bytes: u64, mode: u32, owner: Option<(u32, u32)>) -> Result<Vec<u8>> {
    let mut block = vec![0_u8; BLOCK];
    if name.len() > 100 {
        bail!("{name} is too long a name for a tar header");
    }
    let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, &format!("{mode:07o}"));
    put(136, "00000000000");
    // The checksum is taken with blanks in its place.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    if owner.is_some_and(|(user, _)| user == 0) {
        put(USER, ROOT);
    }
    let (user, group) = owner.unwrap_or_default();
    put_number(&mut block[108..116], user.into());
    put_number(&mut block[116..124], group.into());
    put_number(&mut block[124..136], bytes);
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}

/// Writes a number in octal digits, ended by NUL. One with too many digits stands as GNU tar writes it: in binary,
/// marked by the highest bit.
fn put_number(field: &mut [u8], number: u64) {
    let last = field.len() - 1;
    let digits = format!("{number:0last$o}");
    match digits.len() == last {
        true => field[..last].copy_from_slice(digits.as_bytes()),
        false => {
            let bytes = number.to_be_bytes();
            let (from, of) = (field.len().saturating_sub(8), 8_usize.saturating_sub(field.len()));
            field[from..].copy_from_slice(&bytes[of..]);
            field[0] |= 0x80;
        }
    }
}

/// The user and group in a header of [`header_of`], where they were given.
pub(super) fn owner_in(block: &[u8]) -> Option<(u32, u32)> {
    let of = |from: usize| u32::try_from(number(&block[from..from + 8])?).ok();
    let owner = (of(108)?, of(116)?);
    (owner.0 != 0 || until_nul(&block[USER..USER + 32]) == ROOT.as_bytes()).then_some(owner)
}

/// What follows the contents of the last file, `bytes` long: padding and the two blocks of zeros that end an archive.
pub fn end_of_file(bytes: u64) -> Vec<u8> {
    let padding = (BLOCK as u64 - bytes % BLOCK as u64) % BLOCK as u64;
    vec![0; padding as usize + 2 * BLOCK]
}

pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The name in a header. Only POSIX's own headers have a prefix; GNU's keep other things there.
pub(super) fn header_name(block: &[u8]) -> Vec<u8> {
    let mut name = Vec::new();
    if &block[257..263] == b"ustar\0" {
        let prefix = until_nul(&block[345..500]);
        if !prefix.is_empty() {
            name.extend_from_slice(prefix);
            name.push(b'/');
        }
    }
    name.extend_from_slice(until_nul(&block[..100]));
    name
}

/// A number in octal digits, or in base 256 when the first bit is set. None when it is neither, negative or too large.
pub(super) fn number(field: &[u8]) -> Option<u64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let mut value = u64::from(first & 0x7f);
        if first & 0x40 != 0 {
            return None;
        }
        for byte in rest {
            value = value.checked_mul(256)? | u64::from(*byte);
        }
        return Some(value);
    }
    let digits = until_nul(field).trim_ascii();
    if digits.iter().any(|digit| !(b'0'..=b'7').contains(digit)) {
        return None;
    }
    digits.iter().try_fold(0u64, |value, digit| {
        Some(value.checked_mul(8)? | u64::from(digit - b'0'))
    })
}

/// The checksum is the sum of the header's bytes, its own field taken for blanks; some old programs added up signed
/// bytes.
pub(super) fn checksum_is_right(block: &[u8]) -> bool {
    let Some(expected) = number(&block[148..156]).and_then(|sum| i64::try_from(sum).ok()) else {
        return false;
    };
    let (mut unsigned, mut signed) = (0i64, 0i64);
    for (at, byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&at) { b' ' } else { *byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    expected == unsigned || expected == signed
}
