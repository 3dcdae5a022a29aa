//! Bytes on their way to a file and back.

pub mod checksum;
pub mod compress;
pub mod encrypt;
