//! A sandbox for integration tests: an n8n project directory of its own with the installed scripts, and a stack of real
//! containers with names of its own, both gone when the sandbox is dropped, on a panic too.
//!
//! ```no_run
//! let sandbox = Sandbox::new("roundtrip").postgres().seeded().build();
//! let before = sandbox.fingerprint_postgres();
//! let outcome = sandbox.run("backup-postgres", &[]);
//! outcome.assert_success();
//! outcome.assert_messages("backup-postgres", &["INFO Starting PostgreSQL backup", "SUCCESS Backup completed: {} ({})"]);
//! ```
//!
//! Scripts run as cron runs them: an empty environment but for `PATH=/usr/bin:/bin`, another working directory, no
//! terminal. [`Sandbox::call`] changes that piece by piece.

// Each test binary uses its own part of this.
#![allow(dead_code)]

mod builder;
mod call;
pub mod compose;
pub mod faults;
pub mod n8n;
mod outcome;
pub mod page;
pub mod point;
mod sandbox;
pub mod servers;
pub mod sqlite;
mod stack;
mod tools;

// Each test binary uses its own part of these, too.
#[allow(unused_imports)]
pub use {
    builder::Builder,
    call::{Call, Running},
    outcome::{matches, Line, Outcome},
    sandbox::{Gate, Sandbox},
    stack::{assert_same, REDIS_PORT},
    tools::{
        await_true, can_mount, comes_true, done, env_line, full_pipe, has_program, is_root, mode, name, output,
        pipe_without_reader, plain, program, repository, script, sh, skip,
    },
};
