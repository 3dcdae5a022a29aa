//! The tests of the installed scripts on scratch stacks, in one program, so that the machine is never idle for the last
//! test of a file. What needs a process of its own is beside this directory.

// A test that cannot go on is to panic.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

mod acceptance;
mod alarm;
mod backup;
mod bad_input;
mod cleanup;
mod compress;
mod drill;
mod encryption;
mod engines;
mod executions;
mod faults;
mod mounts;
mod offsite;
mod ops;
mod pages;
mod points;
mod redis;
mod restore;
mod restore_all;
mod restore_dry_run;
mod restore_parts;
mod runbook;
mod stacks;
mod systemd;
mod volume;
mod workflows;
