//! Scanners of what is backed up: is this stream whole, and what is in it? Fed in pieces cut anywhere; no I/O, no clock.

pub mod json;
pub mod n8n;
pub mod pg_dump;
pub mod rdb;
pub mod sqlite;
pub mod tar;
pub mod text;
