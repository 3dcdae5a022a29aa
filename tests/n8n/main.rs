//! Tests with a real n8n: its own image, built of its package.

// A test that cannot go on is to panic.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

mod database;
mod faults;
mod proof;
mod recovery;
mod secrets;
mod sqlite;
mod stack;
mod updates;
mod workflows;
