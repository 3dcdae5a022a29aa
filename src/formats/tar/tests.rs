use std::io::Read;

use anyhow::Result;

use super::header::{checksum_is_right, number};
use super::scanner::MAX_UNSAFE;
use super::*;

fn octal(block: &mut [u8], from: usize, width: usize, value: u64) {
    let text = format!("{value:0w$o}\0", w = width - 1);
    block[from..from + width].copy_from_slice(text.as_bytes());
}

fn seal(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn header(name: &str, kind: u8, size: u64) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    block[..name.len()].copy_from_slice(name.as_bytes());
    octal(&mut block, 100, 8, 0o644);
    octal(&mut block, 124, 12, size);
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut block);
    block
}

fn padded(content: &[u8]) -> Vec<u8> {
    let mut bytes = content.to_vec();
    bytes.resize(content.len().next_multiple_of(BLOCK), 0);
    bytes
}

fn member(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
    [header(name, kind, content.len() as u64), padded(content)].concat()
}

fn link(name: &str, target: &str) -> Vec<u8> {
    let mut block = header(name, b'1', 0);
    block[157..157 + target.len()].copy_from_slice(target.as_bytes());
    seal(&mut block);
    block
}

fn end() -> Vec<u8> {
    vec![0; 2 * BLOCK]
}

fn scan_in(bytes: &[u8], size: usize) -> Result<Summary> {
    let mut scanner = Scanner::new().capture("./config", 64);
    for chunk in bytes.chunks(size.max(1)) {
        scanner.feed(chunk)?;
    }
    scanner.finish()
}

fn scan(bytes: &[u8]) -> Result<Summary> {
    scan_in(bytes, bytes.len())
}

fn record(text: &str) -> String {
    let mut length = text.len() + 2;
    while format!("{length} {text}\n").len() != length {
        length += 1;
    }
    format!("{length} {text}\n")
}

fn sample() -> Vec<u8> {
    let long = format!("./{}", "d/".repeat(100));
    [
        member("./", b'5', b""),
        member("./config", b'0', b"{\"encryptionKey\":\"k\"}"),
        member("ignored", b'L', format!("{long}gnu\0").as_bytes()),
        member("./cut", b'0', &[7; 513]),
        member(
            "ignored",
            b'x',
            [record(&format!("path={long}pax")), record("mtime=1.5")]
                .concat()
                .as_bytes(),
        ),
        member("./cut", b'0', &[1; 512]),
        member("./link", b'2', b""),
        member("./old/", 0, b""),
        end(),
    ]
    .concat()
}

#[test]
fn whole_archive() {
    let summary = scan(&sample()).unwrap();
    assert_eq!(
        summary,
        Summary {
            crossing: None,
            dangling: None,
            members: 6,
            files: 3,
            bytes: 21 + 513 + 512,
            dot_slash: true,
            unsafe_names: Vec::new(),
            captured: Some(b"{\"encryptionKey\":\"k\"}".to_vec()),
            noticed: false,
            root: Some(Properties {
                mode: 0o644,
                ..Properties::default()
            }),
            listing: None,
            places: Vec::new(),
            names: Names::default(),
            missing: Names::default(),
        }
    );
}

#[test]
fn a_listing_tells_archives_apart_but_not_by_their_order() {
    let list = |members: &[Vec<u8>]| {
        let mut scanner = Scanner::new().listed();
        scanner.feed(&[members.concat(), end()].concat()).unwrap();
        scanner.finish().unwrap().listing.unwrap()
    };
    let (root, a, b) = (
        member("./", b'5', b""),
        member("./a", b'0', b"1"),
        member("./b", b'0', b"2"),
    );
    let plain = list(&[root, a.clone(), b.clone()]);
    assert_eq!(plain, list(&[b.clone(), a.clone()]));
    assert_eq!(plain, list(&[member("a", b'0', b"1"), b.clone()]));
    for other in [
        vec![a.clone()],
        vec![a.clone(), member("./b", b'0', b"3")],
        vec![a.clone(), member("./c", b'0', b"2")],
        vec![a.clone(), member("./b", b'5', b"")],
        vec![a.clone(), link("./b", "./a")],
    ] {
        assert_ne!(plain, list(&other));
    }
    // Which of two names of a file comes first makes no difference.
    let x = |name| member(name, b'0', b"x");
    assert_eq!(
        list(&[x("./a"), link("./b", "./a")]),
        list(&[link("./a", "./b"), x("./b")])
    );
}

#[test]
fn chunks_make_no_difference() {
    let bytes = sample();
    let whole = scan(&bytes).unwrap();
    for cut in 0..=bytes.len() {
        let mut scanner = Scanner::new().capture("config", 64);
        scanner.feed(&bytes[..cut]).unwrap();
        scanner.feed(&bytes[cut..]).unwrap();
        assert_eq!(scanner.finish().unwrap(), whole, "cut at {cut}");
    }
    for size in 1..600 {
        assert_eq!(scan_in(&bytes, size).unwrap(), whole, "chunks of {size}");
    }
}

#[test]
fn every_cut_is_found() {
    let bytes = sample();
    for length in 0..bytes.len() {
        assert!(scan(&bytes[..length]).is_err(), "cut to {length} bytes");
    }
}

#[test]
fn every_flipped_bit_of_a_header_is_found() {
    let bytes = sample();
    for at in 0..BLOCK {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            // What stays is another way to write the same checksum.
            let sum = number(&bytes[148..156]);
            if !(148..156).contains(&at) || number(&flipped[148..156]) != sum {
                assert!(scan(&flipped).is_err(), "bit {bit} of byte {at}");
            }
        }
    }
}

#[test]
fn only_zeros_may_follow_the_end() {
    let mut bytes = sample();
    let length = bytes.len();
    bytes.resize(length + 9000, 0);
    scan(&bytes).unwrap();
    bytes[length + 700] = 1;
    let error = scan(&bytes).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("byte {}: data after the end of the archive", length + 700)
    );
    let lone = [
        member("./a", b'0', b"a"),
        vec![0; BLOCK],
        member("./b", b'0', b"b"),
        end(),
    ]
    .concat();
    assert!(scan(&lone)
        .unwrap_err()
        .to_string()
        .starts_with("byte 1024: a block of zeros"));
}

#[test]
fn empty_streams_and_other_files() {
    assert_eq!(scan(b"").unwrap_err().to_string(), "the archive is empty");
    let summary = scan(&end()).unwrap();
    assert_eq!((summary.members, summary.dot_slash), (0, false));
    assert!(scan(&[b'x'; 2 * BLOCK]).is_err());
}

#[test]
fn unsafe_names() {
    let bytes = [
        member("/etc/passwd", b'0', b"x"),
        member("./a/../../b", b'0', b"x"),
        member("..", b'5', b""),
        member("./a..b/..c", b'0', b"x"),
        member("l", b'K', b"../../target\0"),
        member("./hard", b'1', b""),
        member("l", b'K', b"/anywhere\0"),
        member("./soft", b'2', b""),
        end(),
    ]
    .concat();
    let summary = scan(&bytes).unwrap();
    assert_eq!(
        summary.unsafe_names,
        ["/etc/passwd", "./a/../../b", "..", "../../target"]
    );
    assert!(!summary.dot_slash);
    let many = [member("/x", b'0', b"").repeat(20), end()].concat();
    assert_eq!(scan(&many).unwrap().unsafe_names.len(), MAX_UNSAFE);
}

#[test]
fn names_of_prefix_and_long_links() {
    let mut block = header("config", b'0', 3);
    block[345] = b'.';
    seal(&mut block);
    let bytes = [
        block,
        padded(b"abc"),
        member("l", b'K', &[b'y'; 300]),
        member("./s", b'2', b""),
        end(),
    ]
    .concat();
    let summary = scan(&bytes).unwrap();
    assert_eq!(summary.captured.as_deref(), Some(&b"abc"[..]));
    assert!(summary.dot_slash);
}

#[test]
fn sizes_in_base_256_and_in_pax_records() {
    let mut block = header("./config", b'0', 0);
    block[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]);
    seal(&mut block);
    let bytes = [
        block,
        padded(b"12345"),
        member("p", b'x', record("size=600").as_bytes()),
        header("./b", b'0', 1),
        vec![1; 1024],
        end(),
    ]
    .concat();
    let summary = scan(&bytes).unwrap();
    assert_eq!((summary.files, summary.bytes), (2, 605));
    assert_eq!(summary.captured.as_deref(), Some(&b"12345"[..]));
    let mut huge = header("./x", b'0', 0);
    huge[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    seal(&mut huge);
    assert!(scan(&[huge, end()].concat())
        .unwrap_err()
        .to_string()
        .contains("impossible size"));
    let mut negative = header("./x", b'0', 0);
    negative[124..136].fill(0xff);
    seal(&mut negative);
    assert!(scan(&[negative, end()].concat()).is_err());
}

#[test]
fn sparse_files_count_with_their_real_size() {
    let mut old = header("./sparse", b'S', 512);
    old[257..265].copy_from_slice(b"ustar  \0");
    old[482] = 1;
    octal(&mut old, 483, 12, 1 << 20);
    seal(&mut old);
    let mut more = vec![0; BLOCK];
    more[0] = b'1';
    let pax = [record("GNU.sparse.name=./config"), record("GNU.sparse.realsize=1000")].concat();
    let bytes = [
        old,
        more,
        vec![9; 512],
        member("p", b'x', pax.as_bytes()),
        member("./GNUSparseFile.1/config", b'0', b"data"),
        end(),
    ]
    .concat();
    let summary = scan(&bytes).unwrap();
    assert_eq!(
        (summary.members, summary.files, summary.bytes),
        (2, 2, (1 << 20) + 1000)
    );
    assert_eq!(summary.captured, None);
}

#[test]
fn capture_is_bounded_and_takes_the_last() {
    let bytes = [member("./config", b'0', &[b'x'; 65]), end()].concat();
    assert_eq!(scan(&bytes).unwrap().captured, None);
    let bytes = [member("./config", b'0', b"1"), member("config", b'0', b"2"), end()].concat();
    assert_eq!(scan(&bytes).unwrap().captured.as_deref(), Some(&b"2"[..]));
    let bytes = [member("./config", b'0', b""), end()].concat();
    assert_eq!(scan(&bytes).unwrap().captured.as_deref(), Some(&b""[..]));
}

#[test]
fn the_first_of_two_names_is_captured_in_whatever_order_they_come() {
    let captured = |members: &[&Vec<u8>]| {
        let mut scanner = Scanner::new().capture("./config", 64).or_capture("./.n8n/config");
        members.iter().for_each(|member| scanner.feed(member).unwrap());
        scanner.feed(&end()).unwrap();
        scanner.finish().unwrap().captured
    };
    let (own, other) = (
        member("./config", b'0', b"own"),
        member("./.n8n/config", b'0', b"other"),
    );
    for members in [[&own, &other], [&other, &own]] {
        assert_eq!(captured(&members).as_deref(), Some(&b"own"[..]));
    }
    assert_eq!(captured(&[&other]).as_deref(), Some(&b"other"[..]));
    // One that is too large is none.
    let large = member("./config", b'0', &[b'x'; 65]);
    assert_eq!(captured(&[&other, &large]).as_deref(), Some(&b"other"[..]));
    assert_eq!(captured(&[]), None);
}

#[test]
fn a_file_is_captured_whichever_of_its_names_comes_first() {
    let captured = |members: &[Vec<u8>]| scan(&[members.concat(), end()].concat()).unwrap().captured;
    let key = Some(b"key".to_vec());
    for other in ["./config.1", "./.old", "./snapshots/daily.0/config"] {
        let first = member(other, b'0', b"key");
        assert_eq!(captured(&[first.clone(), link("./config", other)]), key, "{other}");
        // podman's own export has no ./ before the names.
        let bare = other.trim_start_matches("./");
        assert_eq!(captured(&[first.clone(), link("config", bare)]), key, "{other}");
        assert_eq!(
            captured(&[member("./config", b'0', b"key"), link(other, "./config")]),
            key
        );
        assert_eq!(captured(&[first]), None);
    }
    // The last one that has the name counts, whatever it is.
    let (own, other) = (member("./config", b'0', b"own"), member("./other", b'0', b"key"));
    assert_eq!(
        captured(&[own.clone(), other.clone(), link("./config", "./other")]),
        key
    );
    assert_eq!(
        captured(&[other, link("./config", "./other"), own.clone()]),
        Some(b"own".to_vec())
    );
    assert_eq!(captured(&[own, link("./config", "./not/there")]), None);
    let large = member("./large", b'0', &[b'x'; 65]);
    assert_eq!(captured(&[large, link("./config", "./large")]), None);
}

#[test]
fn what_may_be_captured_by_another_name_is_bounded() {
    const MAX: usize = 64 << 10;
    let mut scanner = Scanner::new().capture("./config", MAX);
    for number in 0..100 {
        scanner
            .feed(&member(&format!("./{number}"), b'0', &vec![b'x'; MAX]))
            .unwrap();
    }
    scanner.feed(&member("./late", b'0', b"late")).unwrap();
    scanner.feed(&member("./config", b'0', &vec![b'k'; MAX])).unwrap();
    scanner.feed(&end()).unwrap();
    assert_eq!(
        scanner.finish().unwrap().captured.map(|content| content.len()),
        Some(MAX)
    );
}

#[test]
fn damaged_records_are_errors() {
    for records in [
        "x path=a\n",
        "5 a=\n",
        "99 path=a\n",
        "9 path=ab",
        "3 a\n",
        "999999999999999999999 path=a\n",
        "12 size=abc\n\n",
        "11 size=-1\n",
    ] {
        let bytes = [member("p", b'x', records.as_bytes()), member("./a", b'0', b""), end()].concat();
        let good = records == "5 a=\n";
        assert_eq!(scan(&bytes).is_ok(), good, "{records:?}");
    }
    let dangling = [member("p", b'x', record("path=./a").as_bytes()), end()].concat();
    assert!(scan(&dangling).is_err());
}

#[test]
fn what_is_written_is_read() {
    for len in [0, 1, 511, 512, 513] {
        let mut archive = file_header("a name", len as u64, 0o644).unwrap();
        archive.extend(vec![b'x'; len]);
        archive.extend(end_of_file(len as u64));
        assert_eq!(archive.len() % BLOCK, 0);
        let mut scanner = Scanner::new().capture("a name", 1000);
        scanner.feed(&archive).unwrap();
        let summary = scanner.finish().unwrap();
        assert_eq!((summary.members, summary.files, summary.bytes), (1, 1, len as u64));
        assert_eq!(summary.captured.unwrap().len(), len);
    }
    assert!(file_header(&"n".repeat(101), 1, 0o644).is_err());
    for size in [8 << 30, (8 << 30) - 1, 40_u64 << 40, u64::from(u32::MAX) << 20] {
        let header = file_header("n", size, 0o644).unwrap();
        assert_eq!(number(&header[124..136]), Some(size));
        assert!(checksum_is_right(&header), "{size}");
        assert_eq!(header[124] == 0x80, size >= 8 << 30, "{size}");
    }
}

#[test]
fn long_values_of_other_records_are_skipped() {
    let pax = [
        record(&format!("SCHILY.xattr.user.x={}", "=\n".repeat(200_000))),
        record("path=./config"),
    ]
    .concat();
    let bytes = [member("p", b'x', pax.as_bytes()), member("cut", b'0', b"abc"), end()].concat();
    assert_eq!(scan(&bytes).unwrap().captured.as_deref(), Some(&b"abc"[..]));
    let long = [member("p", b'L', &vec![b'a'; MAX_NAME + 1]), end()].concat();
    assert!(scan(&long).is_err());
}

fn symlink(name: &str, target: &str) -> Vec<u8> {
    let mut block = header(name, b'2', 0);
    block[157..157 + target.len()].copy_from_slice(target.as_bytes());
    seal(&mut block);
    block
}

#[test]
fn members_behind_a_link_of_the_archive_are_unsafe() {
    for (link, behind) in [
        ("./out", "./out/x"),
        ("./out", "out//x"),
        ("././out/", "./out/a/b"),
        ("./a/out", "./a/./out/x"),
    ] {
        let bytes = [symlink(link, "/etc"), member(behind, b'0', b"x"), end()].concat();
        assert_eq!(scan(&bytes).unwrap().unsafe_names, [behind], "{link}");
    }
    let mut hard = header("./hard", b'1', 0);
    hard[157..162].copy_from_slice(b"./out");
    seal(&mut hard);
    let mut through = header("./y", b'1', 0);
    through[157..169].copy_from_slice(b"./out/passwd");
    seal(&mut through);
    let bytes = [
        symlink("./out", "/etc"),
        hard,
        member("./hard/x", b'0', b"x"),
        through,
        member("./outside", b'0', b"x"),
        end(),
    ]
    .concat();
    assert_eq!(scan(&bytes).unwrap().unsafe_names, ["./hard/x", "./out/passwd"]);
}

#[test]
fn names_that_are_expected_and_missing_are_told() {
    let mut names = Names::default();
    for name in ["./", "./config", "./cut", "./gone"] {
        names.insert(name.as_bytes());
    }
    let mut scanner = Scanner::new().expecting(names);
    scanner.feed(&sample()).unwrap();
    let missing = scanner.finish().unwrap().missing;
    assert!(missing.contains(b"gone") && !missing.contains(b"config"));
}

/// Gives no more bytes at a time than this.
struct Dripping<'a>(&'a [u8], usize);

impl Read for Dripping<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let n = into.len().min(self.1);
        self.0.read(&mut into[..n])
    }
}

fn select(archive: &[u8], part: &Part) -> Vec<u8> {
    let selected = |drop: usize| {
        let mut out = Vec::new();
        let mut select = Select::new(Dripping(archive, drop), part.clone());
        select.read_to_end(&mut out).unwrap();
        out
    };
    let at_once = selected(usize::MAX);
    assert!([777, BLOCK, 70_000].into_iter().all(|drop| selected(drop) == at_once));
    at_once
}

#[test]
fn parts_of_archives_that_follow_one_another_are_archives() {
    let long = format!("./mounts/{}", "d/".repeat(80));
    let first = [
        member("./", b'5', b""),
        member("./config", b'0', b"1"),
        member("./custom/", b'5', b""),
        member("./custom/a", b'0', &vec![7; 200_100]),
        end(),
        vec![0; 9000 / 512 * 512],
    ]
    .concat();
    let second = [
        member("./mounts/x/", b'5', b""),
        member("l", b'L', format!("{long}f\0").as_bytes()),
        member("./cut", b'0', b"22"),
        end(),
    ]
    .concat();
    let both = [first, second].concat();
    let all = select(&both, &Part::default());
    assert_eq!(scan(&all).unwrap().members, 6);
    assert_eq!(all.len() % BLOCK, 0);
    let home = Part {
        emptied: vec!["custom".to_owned()],
        hidden: "mounts",
        ..Part::default()
    };
    assert_eq!(scan(&select(&both, &home)).unwrap().members, 3);
    let custom = Part {
        below: "custom".to_owned(),
        ..Part::default()
    };
    let summary = scan(&select(&both, &custom)).unwrap();
    assert_eq!((summary.members, summary.bytes), (2, 200_100));
    // The same by a scanner, with names as the part sees them.
    let mut scanner = Scanner::new().part(custom.clone()).capture("a", 300_000).with_places();
    scanner.feed(&all).unwrap();
    let summary = scanner.finish().unwrap();
    assert_eq!((summary.members, summary.captured.map(|a| a.len())), (2, Some(200_100)));
    assert!(summary.root.is_some() && summary.places.is_empty());
    assert_eq!(custom.depth(), 2);
    // What is cut off is not given an end, wherever that is.
    for cut in [700, 1024, 2560] {
        assert!(scan(&select(&both[..cut], &Part::default())).is_err(), "{cut}");
    }
}

#[test]
fn a_link_out_of_its_part_is_told_where_the_part_is_wanted() {
    let mut link = header("./mounts/b/x", b'1', 0);
    link[157..171].copy_from_slice(b"./mounts/a/x\0\0");
    seal(&mut link);
    let archive = [member("./mounts/a/x", b'0', b"1"), link, end()].concat();
    let crossing = |wanted: &[&str]| {
        let below = |name: &&str| Part {
            below: format!("mounts/{name}"),
            ..Part::default()
        };
        let mut scanner = Scanner::new().apart(wanted.iter().map(below).collect());
        scanner.feed(&archive).unwrap();
        scanner.finish().unwrap().crossing
    };
    assert_eq!((crossing(&["a"]), crossing(&[])), (None, None));
    for wanted in [&["b"][..], &["a", "b"]] {
        assert_eq!(crossing(wanted).as_deref(), Some("./mounts/b/x"));
    }
}

#[test]
fn a_link_to_what_the_archive_does_not_hold_is_told() {
    let left_out = ["./database.sqlite".to_owned(), "./mounts/home".to_owned()];
    let mut names = Names::default();
    for name in ["a", "b", "gone", "link"] {
        names.insert(name.as_bytes());
    }
    let dangling = |target: &str| {
        let archive = [
            member("./a", b'0', b"x"),
            link("./link", target),
            member("./b", b'0', b"x"),
            end(),
        ]
        .concat();
        let mut scanner = Scanner::new().expecting(names.clone()).without(left_out.iter());
        scanner.feed(&archive).unwrap();
        scanner.finish().unwrap().dangling
    };
    assert_eq!(dangling("./a"), None);
    // What came while it was read is not known beforehand.
    assert_eq!(dangling("./new"), None);
    for target in ["./database.sqlite", "database.sqlite", "./mounts/home/x", "./gone"] {
        let both = ("./link".to_owned(), target.to_owned());
        assert_eq!(dangling(target), Some(both), "{target}");
    }
}
