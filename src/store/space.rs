//! Room on disks.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::process;

/// The bytes that are free for us on the disk of `dir`, as `df` tells.
pub fn available(dir: &Path, stall: Duration) -> Result<u64> {
    let mut df = process::command("df");
    df.args(["-Pk", "--"]).arg(dir);
    let output = process::output("df", df, None, stall)?;
    free(&output.text()).context("df gave no number")
}

/// The free bytes that `df -Pk` tells of one file system: the field before the one with the percent sign, which no blank
/// in the device's name shifts.
pub fn free(df: &str) -> Option<u64> {
    let line = df.lines().nth(1)?;
    let fields: Vec<&str> = line.split_whitespace().collect();
    let used = fields.iter().position(|field| {
        field
            .strip_suffix('%')
            .is_some_and(|number| number.parse::<u8>().is_ok())
    })?;
    let kb: u64 = fields.get(used.checked_sub(1)?)?.parse().ok()?;
    kb.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn df_is_read_by_its_percent_sign() {
        let head = "Filesystem     1024-blocks     Used Available Capacity Mounted on\n";
        let root = format!("{head}/dev/vda         264212084 16142440  79143448      17% /\n");
        assert_eq!(free(&root), Some(79_143_448 * 1024));
        assert_eq!(
            free(&format!("{head}//nas/my files 10 5 3 63% /mnt/a 5% b\n")),
            Some(3072)
        );
        assert_eq!(free(&format!("{head}tmpfs 10 10 0 100% /x\n")), Some(0));
        for bad in ["", head, "a\nb", "a\n50%"] {
            assert_eq!(free(bad), None, "{bad}");
        }
    }
}
