//! Sizes as people read them, in the three notations that the log has always used, and durations.

use std::time::Duration;

/// What `du -h` prints for a file that occupies `bytes` on disk: `4.0K`, `7.2M`, `0`.
///
/// As in du, the value is rounded up, with one decimal below ten.
pub fn du(bytes: u64) -> String {
    scaled(bytes, "")
}

/// Free space as the log prints it: `77Gi`, `1.5Ti`.
pub fn available(bytes: u64) -> String {
    scaled(bytes, "i")
}

/// An amount of bytes with its unit: `1.4MiB`, `512B`, `0B`.
pub fn amount(bytes: u64) -> String {
    format!("{}B", scaled(bytes, "i"))
}

/// A duration in its two largest units: `850 ms`, `12.3 s`, `3 min 5 s`, `2 h 10 min`, `5 d 3 h`.
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{seconds}.{} s", duration.subsec_millis() / 100),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Rounds up to a power of 1024, as GNU du and numfmt do; `infix` follows the unit's letter.
fn scaled(bytes: u64, infix: &str) -> String {
    const UNITS: [&str; 7] = ["", "K", "M", "G", "T", "P", "E"];
    let mut unit = 0;
    let mut divisor: u128 = 1;
    let bytes = u128::from(bytes);
    loop {
        if unit == 0 {
            if bytes < 1024 {
                return bytes.to_string();
            }
        } else {
            let tenths = (bytes * 10).div_ceil(divisor);
            if tenths < 100 {
                return format!("{}.{}{}{infix}", tenths / 10, tenths % 10, UNITS[unit]);
            }
            let whole = bytes.div_ceil(divisor);
            if whole < 1024 || unit + 1 == UNITS.len() {
                return format!("{whole}{}{infix}", UNITS[unit]);
            }
        }
        unit += 1;
        divisor *= 1024;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn du_rounds_up_like_gnu_du() {
        for (bytes, text) in [
            (0, "0"),
            (512, "512"),
            (1023, "1023"),
            (1024, "1.0K"),
            (4096, "4.0K"),
            (4097, "4.1K"),
            (10 * 1024 - 1, "10K"),
            (10 * 1024, "10K"),
            (10 * 1024 + 1, "11K"),
            (1023 * 1024 + 1, "1.0M"),
            (7_500_000, "7.2M"),
            (u64::MAX, "16E"),
        ] {
            assert_eq!(du(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn a_duration_has_at_most_two_units() {
        for (millis, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (12_399, "12.3 s"),
            (185_000, "3 min 5 s"),
            (7_800_000, "2 h 10 min"),
            (442_800_000, "5 d 3 h"),
        ] {
            assert_eq!(span(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn the_other_notations_add_their_unit() {
        assert_eq!(available(77 << 30), "77Gi");
        assert_eq!(available(1 << 30), "1.0Gi");
        assert_eq!(amount(0), "0B");
        assert_eq!(amount(1_400_000), "1.4MiB");
    }
}
