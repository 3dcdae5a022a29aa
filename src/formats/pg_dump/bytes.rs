//! What is looked for in every byte of a dump.

use std::io::BufRead;

/// Position of a byte. `skip_until` uses the C library's memchr, which is much faster than a loop.
pub(super) fn find(byte: u8, bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    match rest.skip_until(byte) {
        Ok(read) if read > 0 && bytes[read - 1] == byte => Some(read - 1),
        _ => None,
    }
}

/// Number of newlines; sums of one byte let the compiler use vector instructions.
pub(super) fn count_newlines(bytes: &[u8]) -> u64 {
    bytes
        .chunks(255)
        // Not `sum`: its check for an overflow, which cannot come here, would keep the compiler from that.
        .map(|part| {
            part.iter()
                .fold(0u8, |count, &b| count.wrapping_add(u8::from(b == b'\n')))
        })
        .map(u64::from)
        .sum()
}
