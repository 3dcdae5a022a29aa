use super::*;

fn scan_in(bytes: &[u8], size: usize) -> Result<Summary> {
    let mut scanner = Scanner::new();
    for chunk in bytes.chunks(size.max(1)) {
        scanner.feed(chunk)?;
    }
    scanner.finish()
}

fn scan(bytes: &[u8]) -> Result<Summary> {
    scan_in(bytes, bytes.len())
}

fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc64(0, &bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn body() -> Vec<u8> {
    let mut bytes = b"REDIS0010".to_vec();
    bytes.extend_from_slice(b"\xfa\x09redis-ver\x067.0.15");
    bytes.extend_from_slice(b"\xfa\x0aredis-bits\xc0\x40");
    bytes.extend_from_slice(b"\xfa\x05ctime\xc2\x00\xf1\x53\x65");
    bytes.extend_from_slice(b"\xfa\x08used-mem\xc1\x00\x10");
    bytes.extend_from_slice(b"\xfa\x08aof-base\xc0\x00");
    bytes.extend_from_slice(b"\xfe\x00\xfb\x01\x00\x00\x03key\x05value\xff");
    bytes
}

#[test]
fn crc_has_the_check_value_of_redis() {
    assert_eq!(crc64(0, b"123456789"), 0xe9c6_d914_c4b8_d9ca);
    let text: Vec<u8> = (0..1000u32).map(|n| (n * 7 % 251) as u8).collect();
    for cut in 0..=text.len() {
        let (head, tail) = text.split_at(cut);
        assert_eq!(crc64(crc64(0, head), tail), crc64(0, &text));
    }
}

#[test]
fn whole_snapshot() {
    let bytes = with_checksum(body());
    let summary = scan(&bytes).unwrap();
    assert_eq!(summary.version, 10);
    assert_eq!(summary.bytes, bytes.len() as u64);
    assert_eq!(summary.checksum, Checksum::Valid(crc64(0, &body())));
    let aux: Vec<(&str, &str)> = summary.aux.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(
        aux,
        [
            ("aof-base", "0"),
            ("ctime", "1700000000"),
            ("redis-bits", "64"),
            ("redis-ver", "7.0.15"),
            ("used-mem", "4096"),
        ]
    );
}

#[test]
fn chunks_make_no_difference() {
    let bytes = with_checksum(body());
    let whole = scan(&bytes).unwrap();
    for size in 1..=bytes.len() {
        assert_eq!(scan_in(&bytes, size).unwrap(), whole, "chunks of {size}");
    }
    for cut in 0..=bytes.len() {
        let mut scanner = Scanner::new();
        scanner.feed(&bytes[..cut]).unwrap();
        scanner.feed(&[]).unwrap();
        scanner.feed(&bytes[cut..]).unwrap();
        assert_eq!(scanner.finish().unwrap(), whole, "cut at {cut}");
    }
}

#[test]
fn every_cut_is_found() {
    let bytes = with_checksum(body());
    for length in 0..bytes.len() {
        assert!(scan(&bytes[..length]).is_err(), "cut to {length} bytes");
    }
}

#[test]
fn every_flipped_bit_is_found() {
    let bytes = with_checksum(body());
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            // The version itself is covered by the checksum like everything else.
            assert!(scan(&flipped).is_err(), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn what_follows_the_end_is_found() {
    for more in [&b"x"[..], b"\0", b"\xff", b"\0\0\0\0\0\0\0\0", b"REDIS0010"] {
        let mut bytes = with_checksum(body());
        bytes.extend_from_slice(more);
        assert!(scan(&bytes).is_err(), "{more:?}");
    }
}

#[test]
fn checksum_may_be_switched_off() {
    let mut bytes = body();
    bytes.extend_from_slice(&[0; 8]);
    assert_eq!(scan(&bytes).unwrap().checksum, Checksum::Absent);
    for length in 0..bytes.len() {
        assert!(scan(&bytes[..length]).is_err(), "cut to {length} bytes");
    }
}

#[test]
fn old_versions_have_no_checksum() {
    let bytes = b"REDIS0004\xfe\x00\x00\x03key\x05value\xff";
    let summary = scan(bytes).unwrap();
    assert_eq!((summary.version, summary.checksum), (4, Checksum::Absent));
    for length in 0..bytes.len() {
        assert!(scan(&bytes[..length]).is_err(), "cut to {length} bytes");
    }
}

#[test]
fn other_files_are_refused_at_once() {
    let mut valkey = b"VALKEY080\xff".to_vec();
    valkey.extend([0; CHECKSUM]);
    assert_eq!(scan(&valkey).unwrap().version, 80);
    for bytes in [
        &b"-- PostgreSQL database dump"[..],
        b"VALKEYx80\xff",
        b"REDISxxxx\xff",
        b"REDIS001\n....",
    ] {
        let mut scanner = Scanner::new();
        assert!(scanner.feed(bytes).is_err());
    }
    assert_eq!(scan(b"").unwrap_err().to_string(), "the snapshot is empty");
}

#[test]
fn aux_fields_are_bounded_and_never_panic() {
    for aux in [
        &b"\xfa"[..],
        b"\xfa\xc3\x01\x01x",
        b"\xfa\x80\xff\xff\xff\xff",
        b"\xfa\x41",
        b"\xfa\x01a\x7f\xffx",
        b"\xfa\x01a\xc4\x01",
        b"\xfa\x01a\xff",
    ] {
        let mut bytes = b"REDIS0011".to_vec();
        bytes.extend_from_slice(aux);
        bytes.push(OPCODE_EOF);
        assert!(scan(&with_checksum(bytes)).unwrap().aux.is_empty());
    }
    let mut long = b"REDIS0011".to_vec();
    for n in 0..1000 {
        long.extend_from_slice(format!("\u{fa}\u{4}{n:04}\u{1}x").as_bytes());
    }
    long.push(OPCODE_EOF);
    scan(&with_checksum(long)).unwrap();
    let mut many = b"REDIS0011".to_vec();
    for n in 0..1000 {
        many.push(OPCODE_AUX);
        many.extend_from_slice(format!("\u{4}{n:04}\u{1}x").as_bytes());
    }
    many.push(OPCODE_EOF);
    assert_eq!(scan(&with_checksum(many)).unwrap().aux.len(), (MAX_HEAD - HEADER) / 8);
}
