use std::os::unix::fs::symlink;
use std::slice;

use super::*;
use crate::report::finding::Level;
use crate::testing::{sh, TempDir};

fn account(dir: &TempDir) -> Account {
    Account {
        uid: 4711,
        name: "alice".to_owned(),
        home: dir.path().canonicalize().unwrap(),
    }
}

/// An n8n directory with its script.
fn project(dir: &TempDir, name: &str) -> PathBuf {
    let project = dir.path().canonicalize().unwrap().join(name);
    for part in ["scripts", "bin", "logs", "backups"] {
        fs::create_dir_all(project.join(part)).unwrap();
    }
    for file in ["scripts/backup-all.sh", "bin/n8n-backup"] {
        fs::write(project.join(file), "").unwrap();
    }
    project
}

/// What is said of a directory.
fn said(entries: &[Entry], project: &Path, dir: &TempDir) -> Vec<(Level, String)> {
    let config = Config::of_text(project, &project.join(".env"), b"").unwrap();
    let mut report = Report::default();
    judge(entries, &config, &account(dir), None, &mut report);
    let found = report.0.into_iter();
    found.map(|finding| (finding.level, finding.text)).collect()
}

#[track_caller]
fn warns(entries: &[Entry], project: &Path, dir: &TempDir, text: &str) {
    let said = said(entries, project, dir);
    let warned = |(level, said): &(Level, String)| *level == Level::Warning && said.contains(text);
    assert!(said.iter().any(warned), "{said:?}");
}

#[test]
fn the_advised_line_is_one_that_a_shell_and_the_check_understand() {
    let dir = TempDir::new();
    let user = account(&dir);
    for name in ["n8n", "my n8n", "a%b", "a=b", "it's (mine) & 100%"] {
        let project = project(&dir, name);
        let script = project.join("scripts/backup-all.sh");
        let line = advised(&project);
        let command = line.strip_prefix("0 2 * * * ").unwrap().replace(r"\%", "%");
        let run = format!("set -- {}; printf %s \"$1\"", command.split(" >> ").next().unwrap());
        let output = sh(&run).output().unwrap();
        assert_eq!(output.stdout, script.as_os_str().as_encoded_bytes(), "{line}");
        let entries = of_crontab(&line, "your crontab", Some(&user));
        let found = said(&entries, &project, &dir);
        assert_eq!(
            found,
            [(Level::Ok, "your crontab runs backup-all".to_owned())],
            "{line}"
        );
    }
    assert_eq!(quoted(Path::new("/a'b c%")), r"'/a'\''b c\%'");
}

#[test]
fn only_a_line_that_runs_the_script_counts() {
    let dir = TempDir::new();
    let user = account(&dir);
    let ours = project(&dir, "my n8n");
    project(&dir, "other");
    symlink(&ours, dir.path().join("link")).unwrap();
    symlink(ours.join("scripts/backup-all.sh"), dir.path().join("backup-all.sh")).unwrap();
    let root = dir.path().display();
    for line in [
        format!("0 2 * * * '{root}/my n8n/scripts/backup-all.sh' >> '{root}/my n8n/logs/backup.log' 2>&1"),
        format!("@daily {root}/my\\ n8n/scripts/backup-all.sh"),
        format!("*/5 * * * * {root}/link/scripts/backup-all.sh>/dev/null"),
        format!("0 2 * * * {root}/backup-all.sh"),
        format!("0 2 * * * out=`{root}/link/scripts/backup-all.sh`"),
        "0 2 * * * cd $HOME/link && scripts/backup-all.sh".to_owned(),
        "0 2 * * * bash -lc 'cd \"$HOME/my n8n\"; ./scripts/backup-all.sh'".to_owned(),
        "0 2 * * * ~/link/bin/n8n-backup backup-all".to_owned(),
        format!("0 2 * * * n8n-backup -C '{root}/my n8n' backup-all"),
        format!("0 2 * * * /usr/bin/n8n-backup --project-dir={root}/link backup-all"),
    ] {
        let entries = of_crontab(&line, "your crontab", Some(&user));
        assert_eq!(said(&entries, &ours, &dir)[0].0, Level::Ok, "{line}");
    }
    for line in [
        format!("0 2 * * * {root}/my n8n/scripts/backup-all.sh >> {root}/my n8n/logs/backup.log 2>&1"),
        format!("# 0 2 * * * {root}/link/scripts/backup-all.sh"),
        format!("0 2 * * * true % {root}/link/scripts/backup-all.sh"),
        format!("0 2 * * * {root}/link/scripts/backup-redis.sh"),
        format!("0 2 * * * {root}/gone/scripts/backup-all.sh"),
        format!("0 2 * * * {root}/link/bin/n8n-backup -C {root}/other backup-all"),
        format!("SCRIPT={root}/link/scripts/backup-all.sh"),
    ] {
        let entries = of_crontab(&line, "your crontab", Some(&user));
        warns(&entries, &ours, &dir, "nothing was found that runs backup-all");
    }
    // In the system's tables each line names its user.
    let line = format!("0 2 * * * bob {root}/link/scripts/backup-all.sh");
    let entries = of_crontab(&line, "/etc/crontab", None);
    warns(
        &entries,
        &ours,
        &dir,
        "/etc/crontab runs backup-all as bob, and these checks are those of alice: run doctor as bob, too",
    );
}

#[test]
fn a_linked_script_backs_up_where_it_leads_to() {
    let dir = TempDir::new();
    let user = account(&dir);
    let (linked, ours) = (project(&dir, "a"), project(&dir, "b"));
    let script = linked.join("scripts/backup-all.sh");
    fs::remove_file(&script).unwrap();
    symlink("../../b/scripts/backup-all.sh", &script).unwrap();
    symlink(&script, dir.path().join("nightly")).unwrap();
    let line = format!("0 2 * * * {}", script.display());
    let entries = of_crontab(&line, "your crontab", Some(&user));
    warns(&entries, &linked, &dir, "nothing was found that runs backup-all");
    let there = of_crontab("0 2 * * * cd ~/a && scripts/backup-all.sh", "your crontab", Some(&user));
    warns(&there, &linked, &dir, "nothing was found that runs backup-all");
    let right = [(Level::Ok, "your crontab runs backup-all".to_owned())];
    assert_eq!(said(&entries, &ours, &dir), right);
    let entries = of_crontab("0 2 * * * ~/nightly", "your crontab", Some(&user));
    assert_eq!(said(&entries, &ours, &dir), right);
    // Of a link that is a directory the script knows nothing.
    fs::remove_dir_all(linked.join("scripts")).unwrap();
    symlink(ours.join("scripts"), linked.join("scripts")).unwrap();
    let entries = of_crontab(&line, "your crontab", Some(&user));
    assert_eq!(said(&entries, &linked, &dir), right);
    // A command that means both is no second run.
    let line = format!("{line} && {}/scripts/backup-all.sh", ours.display());
    let entries = of_crontab(&line, "your crontab", Some(&user));
    assert_eq!(said(&entries, &ours, &dir), right);
}

#[test]
fn without_the_script_the_program_is_advised() {
    let dir = TempDir::new();
    let line = advised(dir.path());
    let end = format!(" -q -C {} backup-all", dir.path().display());
    assert!(line.starts_with("0 2 * * * /") && line.ends_with(&end), "{line}");
}

#[test]
fn a_service_counts_with_its_timer_enabled_alone() {
    let dir = TempDir::new();
    let ours = project(&dir, "my 50% n8n");
    let units = dir.path().join("units");
    fs::create_dir_all(units.join("timers.target.wants")).unwrap();
    let path = ours.display().to_string().replace('%', "%%");
    let service = format!("[Service]\nUser=4711\nExecStart=:/bin/bash \"{path}/scripts/backup-all.sh\"\n");
    fs::write(units.join("n8n.service"), service).unwrap();
    fs::write(units.join("n8n.timer"), "[Timer]\nOnCalendar=*-*-* 02:00:00\n").unwrap();
    warns(
        &of_units(slice::from_ref(&units), None),
        &ours,
        &dir,
        "no timer of it is enabled: systemctl enable --now n8n.timer",
    );
    let link = units.join("timers.target.wants/n8n.timer");
    symlink("../n8n.timer", &link).unwrap();
    let entries = of_units(slice::from_ref(&units), None);
    let timer = units.join("n8n.timer").display().to_string();
    assert_eq!(
        said(&entries, &ours, &dir),
        [(Level::Ok, format!("{timer} runs backup-all"))]
    );
    assert_eq!(entries[0].when, ("0 2".to_owned(), "* * *".to_owned()));
    // A user's unit ends with the session.
    let nobody = Account {
        name: "n8nbt-none".to_owned(),
        ..account(&dir)
    };
    warns(
        &of_units(slice::from_ref(&units), Some(&nobody)),
        &ours,
        &dir,
        "loginctl enable-linger n8nbt-none",
    );
    fs::remove_file(&link).unwrap();
    // A timer of another name.
    let other = units.join("timers.target.wants/nightly.timer");
    fs::write(other, "[Timer]\nOnCalendar=daily\nUnit=n8n.service\n").unwrap();
    assert_eq!(
        said(&of_units(slice::from_ref(&units), None), &ours, &dir)[0].0,
        Level::Ok
    );
}

#[test]
fn a_unit_of_a_package_counts_unless_the_hosts_own_stands_for_it() {
    let dir = TempDir::new();
    let ours = project(&dir, "n8n");
    let [own, packaged] = ["etc", "usr"].map(|name| dir.path().join(name));
    fs::create_dir_all(own.join("timers.target.wants")).unwrap();
    fs::create_dir_all(&packaged).unwrap();
    let service = format!("[Service]\nExecStart={}/scripts/backup-all.sh\n", ours.display());
    fs::write(packaged.join("n8n.service"), service).unwrap();
    fs::write(packaged.join("n8n.timer"), "[Timer]\nOnCalendar=daily\n").unwrap();
    // The last one is the second once more, as /lib often is.
    let dirs = [own.clone(), packaged.clone(), packaged.clone()];
    warns(&of_units(&dirs, None), &ours, &dir, "no timer of it is enabled");
    symlink(packaged.join("n8n.timer"), own.join("timers.target.wants/n8n.timer")).unwrap();
    let timer = packaged.join("n8n.timer");
    let wanted = format!("{} runs backup-all", timer.display());
    assert_eq!(said(&of_units(&dirs, None), &ours, &dir), [(Level::Ok, wanted)]);
    // The host's own timer stands for the one that the link leads to, also where it is masked.
    fs::write(own.join("n8n.timer"), "[Timer]\nOnCalendar=05:30\n").unwrap();
    assert_eq!(of_units(&dirs, None)[0].when.0, "30 5");
    fs::write(own.join("n8n.timer"), "").unwrap();
    warns(&of_units(&dirs, None), &ours, &dir, "no timer of it is enabled");
    fs::remove_file(own.join("n8n.timer")).unwrap();
    symlink("/dev/null", own.join("n8n.timer")).unwrap();
    warns(&of_units(&dirs, None), &ours, &dir, "no timer of it is enabled");
    fs::remove_file(own.join("n8n.timer")).unwrap();
    symlink("/dev/null", own.join("n8n.service")).unwrap();
    warns(
        &of_units(&dirs, None),
        &ours,
        &dir,
        "nothing was found that runs backup-all",
    );
}

#[test]
fn a_script_that_cron_runs_each_day_counts() {
    let dir = TempDir::new();
    let ours = project(&dir, "n8n");
    let path = ours.display();
    let script = |name: &str, mode: u32, text: &str| {
        let script = dir.path().join(name);
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(mode)).unwrap();
        said(&of_script(&script).into_iter().collect::<Vec<_>>(), &ours, &dir)
    };
    let found = |name: &str| {
        let wanted = format!("{} runs backup-all", dir.path().join(name).display());
        [(Level::Ok, wanted)]
    };
    let text = format!("#!/bin/sh\n# n8n's backups\ncd {path} || exit\n./scripts/backup-all.sh\n");
    assert_eq!(script("nightly", 0o755, &text), found("nightly"));
    let program = format!("#!/bin/sh\n{path}/bin/n8n-backup backup-all\n");
    assert_eq!(script("n8n-backup", 0o755, &program), found("n8n-backup"));
    // What is not run: a script that may not be, one of such a name, a comment.
    for (name, mode, text) in [
        ("off", 0o644, &*text),
        ("nightly.off", 0o755, &*text),
        ("note", 0o755, &*format!("# {path}/scripts/backup-all.sh\n")),
    ] {
        assert_eq!(script(name, mode, text)[0].0, Level::Warning, "{name}");
    }
    let script = ours.join("scripts/backup-all.sh");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    symlink(&script, dir.path().join("link")).unwrap();
    let entries: Vec<Entry> = of_script(&dir.path().join("link")).into_iter().collect();
    assert_eq!(said(&entries, &ours, &dir), found("link"));
}

#[test]
fn a_timer_counts_by_whatever_enables_it() {
    let dir = TempDir::new();
    let ours = project(&dir, "n8n");
    let path = ours.display();
    let units = dir.path().join("units");
    let write = |name: &str, text: &str| {
        let file = units.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    };
    let ok = |timer: &str| {
        let entries = of_units(slice::from_ref(&units), None);
        let wanted = format!("{} runs backup-all", units.join(timer).display());
        assert_eq!(said(&entries, &ours, &dir), [(Level::Ok, wanted)]);
        entries
    };
    // Not the first of several commands, and one that goes on on the next line.
    let gone = format!("ExecStart={path}/scripts/backup-all.sh\nExecStart=\n");
    let service = |command: &str| format!("[Service]\nType=oneshot\nUser=alice\nExecStart=/bin/true\n{command}\n");
    let timer = "[Timer]\nOnCalendar=daily\n";
    write(
        "n8n.service",
        &service(&format!(
            "ExecStart = -/usr/bin/nice \\\n  {path}/scripts/backup-all.sh"
        )),
    );
    // Wanted by both, it is one timer.
    write("multi-user.target.wants/n8n.timer", timer);
    write("default.target.requires/n8n.timer", timer);
    ok("n8n.timer");
    write("n8n.service", &service(&gone));
    let entries = of_units(slice::from_ref(&units), None);
    warns(&entries, &ours, &dir, "nothing was found that runs backup-all");
    fs::remove_file(units.join("n8n.service")).unwrap();
    // An instance of a template, until it has a service of its own.
    write(
        "backup@.service",
        &service(&format!("ExecStart={}/%i/scripts/backup-all.sh", dir.path().display())),
    );
    write("timers.target.wants/backup@n8n.timer", timer);
    write("timers.target.wants/backup@other.timer", timer);
    assert_eq!(ok("backup@n8n.timer")[0].when.0, "0 0");
    write("backup@.timer", "[Timer]\nOnCalendar=03:00\n");
    assert_eq!(ok("backup@n8n.timer")[0].when.0, "0 3");
    write("backup@.timer", "");
    let entries = of_units(slice::from_ref(&units), None);
    warns(&entries, &ours, &dir, "nothing was found that runs backup-all");
    fs::remove_file(units.join("backup@.timer")).unwrap();
    write("backup@n8n.service", &service(""));
    warns(
        &of_units(slice::from_ref(&units), None),
        &ours,
        &dir,
        "nothing was found that runs backup-all",
    );
    assert_eq!(
        specified("%f/%i %%i", r"b@srv-my\x2dn8n"),
        r"/srv/my-n8n/srv-my\x2dn8n %i"
    );
}

#[test]
fn runs_that_meet_are_told() {
    let dir = TempDir::new();
    let user = account(&dir);
    let (ours, other) = (project(&dir, "a"), project(&dir, "b"));
    let line = |when: &str, project: &Path| format!("{when} {}/scripts/backup-all.sh\n", project.display());
    let said = |text: String| said(&of_crontab(&text, "your crontab", Some(&user)), &ours, &dir);
    let apart = said(line("0 2 * * *", &ours) + &line("20 2 * * *", &other) + &line("0 14 * * *", &ours));
    assert_eq!(apart.len(), 1, "{apart:?}");
    let twice = said(line("0 2 * * *", &ours) + &line("00 02 * * *", &ours));
    assert!(twice[1].1.contains("run it at the same minute"), "{twice:?}");
    let both = || said(line("0 2 * * *", &ours) + &line("0 2 * * 7", &other));
    assert!(
        both()[1]
            .1
            .contains("at the same minute, with the same /tmp/n8n-backup.lock"),
        "{:?}",
        both()
    );
    fs::write(other.join(".env"), "BACKUP_LOCK_FILE=logs/lock\n").unwrap();
    assert_eq!(both().len(), 1);
    assert_eq!(of_calendar("*-*-* 02:20:00").0, "20 2");
    assert_eq!(of_calendar("Sun 2:05"), ("5 2".to_owned(), "Sun".to_owned()));
}
