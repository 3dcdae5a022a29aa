use std::io;
use std::time::Duration;

use super::parallel::{part_size, MEMORY, PART};
use super::*;
use crate::process::{self, Count};
use crate::testing::TempDir;

const STALL: Duration = Duration::from_secs(20);

fn tool(name: &str, args: &str) -> Tool {
    Tool::new(PathBuf::from("/bin").join(name), args)
}

fn candidate(args: &str) -> Candidate {
    Candidate {
        tool: tool("gzip", args),
        keeps_up: false,
    }
}

fn gzip(processes: usize) -> Compressor {
    Compressor {
        candidates: vec![candidate("-1")],
        measure: None,
        processes,
    }
}

/// Bytes that pack neither well nor badly.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_103_515_245).wrapping_add(12345);
            b'a' + (state >> 27) as u8
        })
        .collect()
}

fn round_trip(compressor: &Compressor, data: Vec<u8>) -> Vec<u8> {
    let len = data.len() as u64;
    let mut chain = Chain::new(STALL);
    let (packed, count) = compressor
        .compress(&mut chain, io::Cursor::new(data), Count::default())
        .unwrap();
    let packed = chain.collect("collecting", packed, 64 << 20);
    let finished = chain.finish().unwrap();
    assert_eq!(count.get(&finished).unwrap().0, len);
    let unpack = process::output(
        "gzip",
        {
            let mut c = process::command("gzip");
            c.arg("-dc");
            c
        },
        Some(packed.get(&finished).unwrap()),
        STALL,
    );
    let unpacked = unpack.unwrap();
    assert!(unpacked.success, "{}", unpacked.stderr);
    unpacked.stdout
}

#[test]
fn parts_come_back_in_order() {
    for processes in [1, 3] {
        let part = part_size(processes);
        for len in [0, 1, part - 1, part, part + 1, 3 * part + 17] {
            let data = noise(len);
            assert!(round_trip(&gzip(processes), data.clone()) == data, "{len} {processes}");
        }
    }
}

#[test]
fn memory_does_not_grow_with_the_processors() {
    for processes in 1..=8 {
        let part = part_size(processes);
        assert!((2 * processes + 6) * part <= MEMORY, "{processes}");
        assert!(choice::sample(&vec![0; part]).is_some(), "{processes}");
    }
}

#[test]
fn one_process_packs_alone() {
    let data = noise(1 << 20);
    assert!(round_trip(&gzip(0), data.clone()) == data);
}

#[test]
fn a_compressor_that_fails_is_a_failure() {
    let bad = Compressor {
        candidates: vec![candidate("--no-such-option")],
        ..gzip(2)
    };
    let mut chain = Chain::new(STALL);
    let (packed, _) = bad
        .compress(&mut chain, io::Cursor::new(noise(3 * PART.0)), ())
        .unwrap();
    chain.pump("writing", packed, io::sink(), ());
    let error = format!("{:#}", chain.finish().unwrap_err());
    assert!(
        error.contains("no-such-option") || error.contains("unrecognized option"),
        "{error}"
    );
}

/// What takes the archive fails while parts are packed: that is told, not what it does to the compressors.
#[test]
fn a_full_disk_is_the_cause_and_not_what_follows_from_it() {
    for _ in 0..10 {
        let mut chain = Chain::new(STALL);
        let data = io::Cursor::new(noise(8 * PART.0));
        let (packed, _) = gzip(2).compress(&mut chain, data, ()).unwrap();
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        chain.pump("writing", packed, full, ());
        let error = format!("{:#}", chain.finish().unwrap_err());
        assert!(error.contains("No space left on device"), "{error}");
    }
}

#[test]
fn the_setting_names_a_program_with_arguments() {
    let chosen = Compressor::choose("gzip -3", None).unwrap();
    assert_eq!(chosen.thorough().unwrap().args, ["-3"]);
    assert!(chosen.label().starts_with("gzip -3"));
    assert!(Compressor::choose("/bin/gzip", None).is_ok());
    let missing = Compressor::choose("no-such-program-here", None)
        .unwrap_err()
        .to_string();
    assert!(missing.contains("no-such-program-here not found"), "{missing}");
    assert!(!Compressor::choose("auto", None).unwrap().label().is_empty());
}

#[test]
fn auto_takes_the_best_of_what_is_there() {
    let auto = |there: &[&str]| {
        let find = |name: &str| there.contains(&name).then(|| PathBuf::from("/x").join(name));
        Compressor::auto(&find).map(|chosen| {
            Compressor {
                processes: chosen.processes.min(1),
                ..chosen
            }
            .label()
        })
    };
    assert_eq!(
        auto(&["gzip"]).unwrap(),
        "gzip -6 (gzip -1, gzip -4, gzip -5 for what they pack as well)"
    );
    assert_eq!(
        auto(&["gzip", "pigz"]).unwrap(),
        "pigz -6 -p 1 (pigz -1 -p 1, pigz -4 -p 1, pigz -5 -p 1 for what they pack as well)"
    );
    assert_eq!(
        auto(&["gzip", "igzip"]).unwrap(),
        "gzip -6 (igzip -1, gzip -1, gzip -4, gzip -5 for what they pack as well)"
    );
    assert_eq!(
        auto(&["gzip", "pigz", "igzip", "libdeflate-gzip"]).unwrap(),
        "libdeflate-gzip -6 (igzip -1, libdeflate-gzip -1, libdeflate-gzip -3 for what they pack as well)"
    );
    assert_eq!(auto(&["igzip"]).unwrap(), "igzip -1");
    assert_eq!(auto(&[]), None);
}

#[test]
fn path_decides_among_the_programs() {
    let dir = TempDir::new();
    std::os::unix::fs::symlink("/bin/gzip", dir.path().join("gzip")).unwrap();
    let path = dir.path().as_os_str().to_owned();
    let chosen = Compressor::choose("auto", Some(&path)).unwrap();
    assert_eq!(chosen.thorough().unwrap().program, dir.path().join("gzip"));
    let programs = chosen
        .candidates
        .iter()
        .map(|candidate| &candidate.tool)
        .chain(&chosen.measure);
    assert!(programs.into_iter().all(|tool| tool.program.starts_with(dir.path())));
}

#[test]
fn parts_that_different_programs_have_packed_make_one_file() {
    let both = Compressor {
        candidates: vec![
            Candidate {
                keeps_up: true,
                ..candidate("-1")
            },
            candidate("-9"),
        ],
        measure: Some(tool("gzip", "-9")),
        processes: 2,
    };
    let part = part_size(both.processes);
    let letters = noise(12 * part);
    let text: Vec<u8> = (0..2 * part as u32)
        .flat_map(|n| (n / 7).to_string().into_bytes())
        .collect();
    let data = [&letters[..], &text[..3 * part], &letters[..part], &text[..7]].concat();
    assert!(round_trip(&both, data.clone()) == data);
}

/// Words of a vocabulary, the first ones far more often than the last.
fn prose(len: usize) -> Vec<u8> {
    let letters = noise(40_000);
    let vocabulary: Vec<&[u8]> = letters
        .chunks(8)
        .map(|word| &word[..2 + word[0] as usize % 7])
        .collect();
    let mut state = 7_u64;
    let mut text = Vec::with_capacity(len + 8);
    while text.len() < len {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let chance = (state >> 33) as f64 / f64::from(1_u32 << 31);
        text.extend(vocabulary[(chance.powi(3) * vocabulary.len() as f64) as usize]);
        text.push(b' ');
    }
    text.truncate(len);
    text
}

/// Whatever programs this host has.
#[test]
fn an_archive_is_about_as_small_as_the_measure_makes_it() {
    let auto = Compressor::choose("auto", None).unwrap();
    let part = part_size(auto.processes.max(1));
    let (letters, text) = (noise(16 * part), prose(16 * part));
    let turns: Vec<u8> = letters
        .chunks(5 * part / 4)
        .zip(text.chunks(5 * part / 4))
        .flat_map(|(a, b)| [a, b].concat())
        .collect();
    for (what, data) in [
        ("letters, then text", [&letters[..], &text].concat()),
        ("text, then letters", [&text[..], &letters].concat()),
        ("by turns", turns),
    ] {
        let packed = |compressor: &Compressor| {
            let mut chain = Chain::new(STALL);
            let (packed, _) = compressor
                .compress(&mut chain, io::Cursor::new(data.clone()), ())
                .unwrap();
            let count = chain.pump("counting", packed, io::sink(), Count::default());
            count.get(&chain.finish().unwrap()).unwrap().0
        };
        let alone = Compressor {
            candidates: vec![candidate("-6")],
            measure: None,
            processes: 0,
        };
        let (ours, least) = (packed(&auto), packed(&alone));
        assert!(
            ours * 100 <= least * 102,
            "{what}: {ours} bytes, by gzip -6 alone {least}"
        );
    }
}

#[test]
fn what_passes_by_is_unpacked_and_a_damaged_stream_is_a_failure() {
    let packed = process::output("gzip", Tool::command(&tool("gzip", "-1")), Some(noise(100_000)), STALL).unwrap();
    for (stream, whole) in [
        (packed.stdout.clone(), true),
        (packed.stdout[..packed.stdout.len() - 1].to_vec(), false),
        ([packed.stdout.as_slice(), packed.stdout.as_slice()].concat(), true),
    ] {
        let mut chain = Chain::new(STALL);
        let times = stream.len() / packed.stdout.len();
        let (unpacking, count) = Unpacking::start(&mut chain, None).unwrap();
        chain.pump("writing", io::Cursor::new(stream), io::sink(), unpacking);
        let finished = chain.finish();
        assert_eq!(finished.is_ok(), whole);
        if let Ok(finished) = finished {
            assert_eq!(count.get(&finished).unwrap().0, 100_000 * times as u64);
        }
    }
}
