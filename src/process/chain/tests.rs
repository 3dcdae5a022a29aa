use std::io;

use super::*;
use crate::process::Count;
use crate::testing::{sh, STALL};

/// By a socket as by a pipe: who loses its reader is no cause, and who loses its writer's other end is told so.
#[test]
fn either_link_ends_alike() {
    for link in [Link::Pipe, Link::Socket] {
        let mut chain = Chain::new(STALL);
        let started = chain.start("source".to_owned(), sh("yes"), Input::Null, link);
        let (_, mut out) = started.and_then(with_output).unwrap();
        out.read_exact(&mut [0; 10]).unwrap();
        drop(out);
        let error = chain.finish().unwrap_err();
        assert!(is_broken_pipe(&error), "{link:?}: {error:#}");

        let mut chain = Chain::new(STALL);
        let (to, out) = chain
            .start("filter".to_owned(), sh("head -c 1; exit 3"), Input::Piped, link)
            .and_then(with_output)
            .unwrap();
        chain.pump("filling", io::repeat(b'x'), to.unwrap(), ());
        let read = chain.collect("reading", out, 10);
        let error = chain.finish().unwrap_err();
        assert!(format!("{error:#}").contains("exit code 3"), "{link:?}: {error:#}");
        assert!(!is_broken_pipe(&error), "{link:?}: {error:#}");
        assert_eq!(read.despite(&error).unwrap(), b"x", "{link:?}");
    }
}

#[test]
fn a_stream_runs_through_and_is_counted() {
    let mut chain = Chain::new(STALL);
    let (_, from) = chain
        .spawn("source", sh("head -c 3000000 /dev/zero"), Input::Null)
        .unwrap();
    let (to, out) = chain.spawn("filter", sh("cat"), Input::Piped).unwrap();
    let first = chain.pump("first", from, to.unwrap(), Count::default());
    let second = chain.pump("second", out, io::sink(), Count::default());
    let finished = chain.finish().unwrap();
    assert_eq!(first.get(&finished).unwrap().0, 3_000_000);
    assert_eq!(second.get(&finished).unwrap().0, 3_000_000);
}

#[test]
fn the_cause_is_told_not_its_consequences() {
    let mut chain = Chain::new(STALL);
    let (_, from) = chain.spawn("source", sh("cat /dev/zero"), Input::Null).unwrap();
    let (to, out) = chain
        .spawn("filter", sh("head -c 9 >&2; echo no room >&2; exit 3"), Input::Piped)
        .unwrap();
    chain.pump("copying", from, to.unwrap(), ());
    chain.pump("writing", out, io::sink(), ());
    let error = format!("{:#}", chain.finish().unwrap_err());
    assert!(
        error.starts_with("filter failed: ") && error.contains("no room: exit code 3"),
        "{error}"
    );
}

#[test]
fn a_failed_step_ends_the_children() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let start = Instant::now();
    let mut chain = Chain::new(STALL);
    let (_, from) = chain.spawn("source", sh("echo x; sleep 60"), Input::Null).unwrap();
    chain.pump("writing a file", from, Full, ());
    let error = format!("{:#}", chain.finish().unwrap_err());
    assert_eq!(error, "writing a file: no storage space");
    assert!(start.elapsed() < STALL);
}

#[test]
fn the_step_that_failed_first_is_told() {
    let mut chain = Chain::new(STALL);
    let (failed, wait) = std::sync::mpsc::channel::<()>();
    // Its stream ends because the other one has failed.
    chain.task("reading", move |clock| {
        let _ = wait.recv();
        while !clock.ended() {
            std::thread::yield_now();
        }
        Err::<(), _>(anyhow::anyhow!("cut off"))
    });
    chain.task("writing a file", move |_| {
        drop(failed);
        Err::<(), _>(io::Error::from(ErrorKind::StorageFull).into())
    });
    let error = format!("{:#}", chain.finish().unwrap_err());
    assert_eq!(error, "writing a file: no storage space");
}

#[test]
fn a_stall_ends_even_what_hides_behind_a_child() {
    let start = Instant::now();
    let mut chain = Chain::new(Duration::from_millis(300));
    let (_, from) = chain
        .spawn("source", sh("echo x; sleep 60 & wait"), Input::Null)
        .unwrap();
    chain.pump("reading", from, io::sink(), ());
    let error = format!("{:#}", chain.finish().unwrap_err());
    assert!(error.starts_with("nothing moved"), "{error}");
    assert!(start.elapsed() < GRACE, "{:?}", start.elapsed());
}

#[test]
fn a_pulse_tells_slow_work_from_a_stall() {
    let run = |alive: bool| {
        let mut chain = Chain::new(Duration::from_millis(300));
        chain.pulse(move || alive);
        let (_, from) = chain.spawn("source", sh("sleep 1; echo x"), Input::Null).unwrap();
        chain.pump("reading", from, io::sink(), ());
        chain.finish()
    };
    run(true).unwrap();
    assert!(format!("{:#}", run(false).unwrap_err()).starts_with("nothing moved"));
}

#[test]
fn a_chain_proves_nothing_for_another() {
    let mut chain = Chain::new(STALL);
    let value = chain.task("thinking", |_| Ok(1));
    let finished = chain.finish().unwrap();
    assert!(value.get(&Chain::new(STALL).finish().unwrap()).is_err());
    let value = Chain::new(STALL).task("thinking", |_| Ok(1));
    assert!(value.get(&finished).is_err());
}

#[test]
fn a_leash_closes_with_the_chain() {
    let mut chain = Chain::new(STALL);
    let (stdin, from) = chain.spawn("source", sh("cat; echo done"), Input::Leash).unwrap();
    assert!(stdin.is_none());
    chain.shared.processes()[0].leash = None;
    let output = chain.collect("reading", from, 100);
    assert_eq!(output.get(&chain.finish().unwrap()).unwrap(), b"done\n");
}
