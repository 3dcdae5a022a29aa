//! RDB snapshots of Redis, read as a stream.
//!
//! The format: the magic `REDIS` and four digits of version (`VALKEY` and three from Valkey 9 on), auxiliary fields and
//! data, the EOF opcode 0xFF and, from version 5 on, a CRC-64 of everything before it as eight bytes, least significant
//! first. All of them zero mean that Redis runs with `rdbchecksum no`. The CRC is CRC-64/Redis: polynomial
//! 0xad93d23594c935a9 (Jones), reflected, initial value 0, no final inversion. Lengths and strings are those of the
//! "Redis RDB File Format".
//!
//! Memory: tables of 16 KiB and the first 4 KiB of the snapshot.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use anyhow::{bail, Result};

/// Length of magic and version.
const HEADER: usize = 9;
/// Length of the checksum.
const CHECKSUM: usize = 8;
/// How much of the beginning is kept to read the auxiliary fields from.
const MAX_HEAD: usize = 4096;
const OPCODE_EOF: u8 = 0xff;
const OPCODE_AUX: u8 = 0xfa;
/// The polynomial with its bits in reverse order.
const POLYNOMIAL: u64 = 0xad93_d235_94c9_35a9u64.reverse_bits();

/// `TABLES[n][b]` is the CRC of the byte `b` and n zero bytes, so that eight bytes can be looked up at once.
static TABLES: [[u64; 256]; 8] = tables();

const fn tables() -> [[u64; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ POLYNOMIAL
            } else {
                crc >> 1
            };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut byte = 0;
        while byte < 256 {
            let crc = tables[table - 1][byte];
            tables[table][byte] = (crc >> 8) ^ tables[0][(crc & 0xff) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
}

/// CRC-64/Redis of `bytes`, continued from the CRC of what came before them; 0 at the beginning.
fn crc64(mut crc: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let x = (crc ^ u64::from_le_bytes(*word)).to_le_bytes();
        crc = TABLES[7][usize::from(x[0])]
            ^ TABLES[6][usize::from(x[1])]
            ^ TABLES[5][usize::from(x[2])]
            ^ TABLES[4][usize::from(x[3])]
            ^ TABLES[3][usize::from(x[4])]
            ^ TABLES[2][usize::from(x[5])]
            ^ TABLES[1][usize::from(x[6])]
            ^ TABLES[0][usize::from(x[7])];
    }
    for byte in rest {
        crc = (crc >> 8) ^ TABLES[0][usize::from(crc.to_le_bytes()[0] ^ byte)];
    }
    crc
}

/// What the checksum of a snapshot says. A wrong one is an error of [`Scanner::finish`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// The checksum, which is right.
    Valid(u64),
    /// The snapshot has none: `rdbchecksum no`, or a version before 5. Only its two ends could be checked.
    Absent,
}

/// What is known of a whole snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Version of the format, such as 10 for Redis 7.0.
    pub version: u32,
    /// Length in bytes.
    pub bytes: u64,
    /// Whether a checksum has proven the content.
    pub checksum: Checksum,
    /// The auxiliary fields at the beginning, such as `redis-ver`, `ctime` (seconds since 1970), `used-mem` (bytes)
    /// and `aof-base`, as far as they stand in the first 4 KiB.
    pub aux: BTreeMap<String, String>,
}

/// Reads a snapshot and proves that it is whole.
pub struct Scanner {
    head: Vec<u8>,
    /// The last bytes, which may be the checksum and are not yet part of the CRC.
    tail: Vec<u8>,
    /// The last byte that is part of the CRC.
    last: Option<u8>,
    crc: u64,
    bytes: u64,
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

impl Scanner {
    /// A scanner at the beginning of a snapshot.
    pub fn new() -> Self {
        Self {
            head: Vec::new(),
            tail: Vec::with_capacity(2 * CHECKSUM),
            last: None,
            crc: 0,
            bytes: 0,
        }
    }

    /// Reads the next bytes; where the stream is cut into chunks makes no difference.
    ///
    /// # Errors
    /// The stream does not begin as a snapshot does.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<()> {
        if self.head.len() < MAX_HEAD {
            let begun = self.head.len() >= HEADER;
            let part = &chunk[..chunk.len().min(MAX_HEAD - self.head.len())];
            self.head.extend_from_slice(part);
            if !begun && self.head.len() >= HEADER {
                self.version()?;
            }
        }
        self.bytes += chunk.len() as u64;
        let fresh = chunk.len().saturating_sub(CHECKSUM);
        let (body, end) = chunk.split_at(fresh);
        if body.is_empty() {
            self.tail.extend_from_slice(end);
            let tail = std::mem::take(&mut self.tail);
            let (old, new) = tail.split_at(tail.len().saturating_sub(CHECKSUM));
            self.add(old);
            self.tail.extend_from_slice(new);
        } else {
            let tail = std::mem::take(&mut self.tail);
            self.add(&tail);
            self.add(body);
            self.tail.extend_from_slice(end);
        }
        Ok(())
    }

    fn add(&mut self, bytes: &[u8]) {
        self.crc = crc64(self.crc, bytes);
        self.last = bytes.last().copied().or(self.last);
    }

    fn version(&self) -> Result<u32> {
        let head = self.head.get(..HEADER).unwrap_or_default();
        let Some(digits) = head.strip_prefix(b"REDIS").or_else(|| head.strip_prefix(b"VALKEY")) else {
            bail!("the snapshot does not begin with REDIS and a version: it is not an RDB file, or cut off");
        };
        if !digits.iter().all(u8::is_ascii_digit) {
            bail!("the snapshot has no version of digits after REDIS: it is not an RDB file");
        }
        Ok(digits
            .iter()
            .fold(0, |version, digit| version * 10 + u32::from(digit - b'0')))
    }

    /// Ends the snapshot.
    ///
    /// # Errors
    /// The snapshot is empty, cut off or damaged, or something follows its end.
    pub fn finish(self) -> Result<Summary> {
        let bytes = self.bytes;
        if bytes == 0 {
            bail!("the snapshot is empty");
        }
        let version = self.version()?;
        let (eof, checksum) = if version < 5 {
            let last = (bytes > HEADER as u64).then_some(self.tail.last()).flatten();
            (last.copied(), Checksum::Absent)
        } else {
            let stored = self
                .tail
                .iter()
                .rev()
                .fold(0u64, |value, byte| (value << 8) | u64::from(*byte));
            if stored == 0 {
                (self.last, Checksum::Absent)
            } else {
                (self.last, Checksum::Valid(stored))
            }
        };
        if eof != Some(OPCODE_EOF) {
            bail!("the snapshot is cut off or damaged: it ends at byte {bytes} without the end mark of an RDB file");
        }
        match checksum {
            Checksum::Valid(stored) if stored != self.crc => bail!(
                "the snapshot is cut off or damaged: the checksum at byte {} is {stored:016x}, that of the content \
                 {:016x}",
                bytes - CHECKSUM as u64,
                self.crc
            ),
            _ => {}
        }
        Ok(Summary {
            version,
            bytes,
            checksum,
            aux: aux_fields(self.head.get(HEADER..).unwrap_or_default()),
        })
    }
}

/// The auxiliary fields at the beginning; what cannot be read ends them.
fn aux_fields(mut bytes: &[u8]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    while let Some((&OPCODE_AUX, mut rest)) = bytes.split_first() {
        let (Some(key), Some(value)) = (string(&mut rest), string(&mut rest)) else {
            break;
        };
        fields.insert(key, value);
        bytes = rest;
    }
    fields
}

/// Takes a string off the front: its first two bits say whether a length of 6, 14 or 32 bits or an integer follows.
fn string(bytes: &mut &[u8]) -> Option<String> {
    let first = *bytes.split_off_first()?;
    let length = match first >> 6 {
        0 => usize::from(first & 0x3f),
        1 => usize::from(first & 0x3f) << 8 | usize::from(*bytes.split_off_first()?),
        2 if first == 0x80 => {
            let length = bytes.split_off(..4)?;
            usize::try_from(u32::from_be_bytes(length.try_into().ok()?)).ok()?
        }
        3 => {
            let number = match first & 0x3f {
                0 => i64::from(i8::from_le_bytes(bytes.split_off(..1)?.try_into().ok()?)),
                1 => i64::from(i16::from_le_bytes(bytes.split_off(..2)?.try_into().ok()?)),
                2 => i64::from(i32::from_le_bytes(bytes.split_off(..4)?.try_into().ok()?)),
                _ => return None,
            };
            return Some(number.to_string());
        }
        _ => return None,
    };
    let text = bytes.split_off(..length)?;
    Some(String::from_utf8_lossy(text).into_owned())
}
