//! The manual page and the completions, as groff and the shells take them. No Docker is needed.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::common::{has_program, skip};

fn n8n_backup(args: &[&str]) -> String {
    crate::common::done({
        let mut command = Command::new(crate::common::program());
        command.args(args);
        command
    })
}

/// Gives `input` to a program and takes all that it says.
fn said(program: &str, args: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// A file with a shell's completions, in a directory of its own, which goes with it.
struct Script(PathBuf);

impl Script {
    fn new(shell: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("n8nbt-completions-{shell}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("_n8n-backup"), n8n_backup(&["completions", shell])).unwrap();
        Self(dir)
    }

    fn file(&self) -> String {
        self.0.join("_n8n-backup").display().to_string()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn groff_has_nothing_to_say_about_the_manual_page() {
    if !has_program("groff") {
        return skip(
            "groff_has_nothing_to_say_about_the_manual_page",
            "groff is not installed",
        );
    }
    assert_eq!(
        said("groff", &["-man", "-ww", "-z", "-Tascii"], &n8n_backup(&["man"])),
        ""
    );
}

#[test]
fn bash_completes() {
    let script = Script::new("bash");
    let complete = |words: &str| {
        let program = format!(
            "source '{}'; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _n8n_backup; echo \"${{COMPREPLY[*]}}\"",
            script.file()
        );
        let words = said("bash", &["--norc", "-c", &program], "");
        words.trim().to_owned()
    };
    assert_eq!(complete("n8n-backup cl"), "cleanup-backups");
    assert_eq!(complete("n8n-backup -C /tmp stat"), "status");
    assert_eq!(complete("n8n-backup cleanup-backups --dr"), "--dry-run");
    assert_eq!(complete("n8n-backup completions ''"), "bash zsh fish");
    assert_eq!(complete("n8n-backup workflows exp"), "export");
    assert_eq!(complete("n8n-backup workflows export --hi"), "--history");
    assert_eq!(complete("n8n-backup workflows latest --js"), "--json");
    let dir = script.0.display();
    assert_eq!(
        complete(&format!("n8n-backup restore-postgres {dir}/_n8")),
        script.file()
    );
    // Of paths, a directory alone is offered.
    assert_eq!(complete(&format!("n8n-backup --project-dir {dir}/_n8")), "");
    fs::create_dir(script.0.join("_n8n")).unwrap();
    assert_eq!(
        complete(&format!("n8n-backup --project-dir {dir}/_n8")),
        format!("{dir}/_n8n")
    );
}

#[test]
fn fish_completes() {
    if !has_program("fish") {
        return skip("fish_completes", "fish is not installed");
    }
    let script = Script::new("fish");
    let complete = |line: &str| {
        let program = format!("source '{}'; complete -C '{line}'", script.file());
        let lines = said("fish", &["--no-config", "-c", &program], "");
        lines
            .lines()
            .map(|line| line.split('\t').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(complete("n8n-backup cl"), ["cleanup-backups"]);
    assert_eq!(complete("n8n-backup cleanup-backups --dr"), ["--dry-run"]);
    assert_eq!(complete("n8n-backup completions "), ["bash", "fish", "zsh"]);
    assert_eq!(complete("n8n-backup workflows export --hi"), ["--history"]);
    assert!(complete("n8n-backup cleanup-backups --max").is_empty());
}

/// Types at a real zsh on a terminal and shows what it displays.
const ZSH: &str = r#"
zmodload zsh/zpty
zpty z "zsh -f -i"
zpty -w z "fpath=($1 \$fpath); autoload -Uz compinit; compinit -u -D; bindkey -e; print RE''ADY"
zpty -r -m z out '*READY*'
zpty -w -n z "$2"$'\t'
repeat 300 { sleep 0.1; while zpty -r -t z more; do all+=$more; done; [[ $all == *$3* ]] && break }
print -r -- "$all"
zpty -d z
"#;

#[test]
fn zsh_completes() {
    if !has_program("zsh") {
        return skip("zsh_completes", "zsh is not installed");
    }
    let script = Script::new("zsh");
    let dir = script.0.display().to_string();
    for (typed, completed) in [
        ("n8n-backup cl", "eanup-backups"),
        ("n8n-backup cleanup-backups --dr", "--dry-run"),
        ("n8n-backup completions fi", "fish"),
        ("n8n-backup workflows export --hi", "--history"),
        ("n8n-backup -C /tmp status --js", "--json"),
    ] {
        let shown = said("zsh", &["-f", "-s", "--", &dir, typed, completed], ZSH);
        let plain: String = shown
            .split('\u{1b}')
            .map(|part| part.trim_start_matches("[K"))
            .collect();
        assert!(plain.contains(completed), "{typed}: {shown:?}");
    }
}
