//! What stands before a member to say more of it than its header can: pax records, and GNU's long names.

use anyhow::{bail, Result};

use super::MAX_NAME;

/// The longest keyword of a pax record.
const MAX_KEYWORD: usize = 256;

/// What pax records and GNU's long names say about the next member.
#[derive(Debug, Clone, Default)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) sparse_name: Option<Vec<u8>>,
    pub(super) sparse_size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<u64>,
}

/// Reads pax records, `LENGTH KEYWORD=VALUE\n`, as they come.
#[derive(Debug, Default)]
pub(super) struct Records {
    step: Step,
    /// Bytes of the record that are still to come.
    left: u64,
    digits: usize,
    length: u64,
    keyword: Vec<u8>,
    value: Vec<u8>,
    too_long: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Step {
    #[default]
    Length,
    Keyword,
    Value,
}

impl Records {
    pub(super) fn at_start(&self) -> bool {
        self.step == Step::Length && self.digits == 0
    }

    pub(super) fn feed(&mut self, bytes: &[u8], into: &mut Extended, offset: u64) -> Result<()> {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            match self.step {
                Step::Length => {
                    match byte {
                        b'0'..=b'9' if self.digits < 18 => {
                            self.length = self.length * 10 + u64::from(byte - b'0');
                            self.digits += 1;
                        }
                        // A record has at least `LENGTH`, a blank, a keyword of one letter, `=` and a newline.
                        b' ' if self.digits > 0 && self.length >= self.digits as u64 + 4 => {
                            self.left = self.length - self.digits as u64 - 1;
                            self.step = Step::Keyword;
                            self.keyword.clear();
                            self.value.clear();
                            self.too_long = false;
                        }
                        _ => bail!("byte {offset}: pax records that cannot be read; the archive is damaged"),
                    }
                    rest = after;
                }
                Step::Keyword => {
                    self.left -= 1;
                    if byte == b'=' && self.left > 0 {
                        self.step = Step::Value;
                    } else if self.left <= 1 || self.keyword.len() == MAX_KEYWORD {
                        bail!("byte {offset}: pax records that cannot be read; the archive is damaged");
                    } else {
                        self.keyword.push(byte);
                    }
                    rest = after;
                }
                Step::Value => {
                    let (value, after) = rest.split_at(within(rest.len(), self.left));
                    self.left -= value.len() as u64;
                    if self.is_of_interest() && !self.too_long {
                        self.too_long = self.value.len() + value.len() > MAX_NAME + 1;
                        if !self.too_long {
                            self.value.extend_from_slice(value);
                        }
                    }
                    if self.left == 0 {
                        if value.last() != Some(&b'\n') {
                            bail!("byte {offset}: a pax record without its newline; the archive is damaged");
                        }
                        self.end_record(into, offset)?;
                    }
                    rest = after;
                }
            }
        }
        Ok(())
    }

    fn is_of_interest(&self) -> bool {
        matches!(
            self.keyword.as_slice(),
            b"path"
                | b"linkpath"
                | b"size"
                | b"uid"
                | b"gid"
                | b"mtime"
                | b"GNU.sparse.name"
                | b"GNU.sparse.realsize"
                | b"GNU.sparse.size"
        )
    }

    fn end_record(&mut self, into: &mut Extended, offset: u64) -> Result<()> {
        self.step = Step::Length;
        self.digits = 0;
        self.length = 0;
        if self.too_long {
            bail!("byte {offset}: a pax record with a value of more than {MAX_NAME} bytes");
        }
        self.value.pop();
        let value = std::mem::take(&mut self.value);
        // An empty value takes back what was said before.
        let text = (!value.is_empty()).then_some(value);
        let number = || -> Result<Option<u64>> {
            let Some(text) = &text else { return Ok(None) };
            let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
            match number {
                Some(_) => Ok(number),
                None => bail!("byte {offset}: a pax record with a number that cannot be read; the archive is damaged"),
            }
        };
        match self.keyword.as_slice() {
            b"size" => into.size = number()?,
            b"uid" => into.uid = number()?,
            b"gid" => into.gid = number()?,
            // With a fraction, or before 1970; only whole seconds are kept.
            b"mtime" => {
                into.mtime = text
                    .as_deref()
                    .and_then(|text| std::str::from_utf8(text).ok())
                    .map(|text| text.split('.').next().and_then(|text| text.parse().ok()).unwrap_or(0));
            }
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => into.sparse_size = number()?,
            b"path" => into.path = text,
            b"linkpath" => into.link = text,
            b"GNU.sparse.name" => into.sparse_name = text,
            _ => {}
        }
        Ok(())
    }
}

/// The smaller of a length and what is left.
pub(super) fn within(length: usize, left: u64) -> usize {
    usize::try_from(left).map_or(length, |left| left.min(length))
}
