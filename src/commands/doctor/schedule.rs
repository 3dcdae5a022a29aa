//! Whether anything is going to run backup-all by itself, and whether that meets another run.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::app::App;
use crate::config::Config;
use crate::process;
use crate::report::finding::Report;
use crate::store::atomic::{self, own_user, owner_for};

/// Where systemd keeps a mark for each user whose units run without a session.
const LINGERING: &str = "/var/lib/systemd/linger";

/// A user of this host.
struct Account {
    uid: u32,
    name: String,
    home: PathBuf,
}

impl Account {
    /// The user of that number, as the host's databases know them.
    fn of(uid: u32) -> Self {
        let mut getent = process::command("getent");
        getent.args(["passwd", &uid.to_string()]);
        let found = told(getent);
        let mut fields = found.trim_end().split(':');
        let name = fields.next().filter(|name| !name.is_empty());
        Self {
            uid,
            name: name.map_or_else(|| uid.to_string(), str::to_owned),
            home: fields.nth(4).unwrap_or_default().into(),
        }
    }

    fn is(&self, named: &str) -> bool {
        named == self.name || named == self.uid.to_string()
    }
}

/// Something that runs backup-all for a directory.
struct Entry {
    from: String,
    /// Whose run it is.
    user: String,
    /// The n8n directories that its command may mean.
    projects: Vec<PathBuf>,
    /// Minute and hour, and the days, as a crontab has them.
    when: (String, String),
    /// Why nothing comes of it, and what to do.
    idle: Option<String>,
}

/// Looks, and says what was found.
pub fn check(app: &App, report: &mut Report) {
    let project = &app.config.project;
    let uid = own_user().unwrap_or_default();
    let mut me = Account::of(uid);
    if let Some(home) = env::var_os("HOME") {
        me.home = home.into();
    }
    let owner = other_owner(project);
    let mut entries = Vec::new();
    // A unit goes before those of its name in what follows.
    let units = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
    for account in owner.iter().chain([&me]) {
        let mut crontab = process::command("crontab");
        let from = match account.uid == uid {
            true => "your crontab".to_owned(),
            false => {
                crontab.args(["-u", &account.name]);
                format!("the crontab of {}", account.name)
            }
        };
        crontab.arg("-l");
        entries.extend(of_crontab(&told(crontab), &from, Some(account)));
        let config = env::var_os("XDG_CONFIG_HOME").filter(|_| account.uid == uid);
        let config = config.map_or_else(|| account.home.join(".config"), PathBuf::from);
        entries.extend(of_units(&[config.join("systemd/user")], Some(account)));
    }
    for table in files(Path::new("/etc/cron.d"))
        .into_iter()
        .chain(["/etc/crontab".into()])
    {
        let text = text_of(&table).unwrap_or_default();
        entries.extend(of_crontab(&text, &table.display().to_string(), None));
    }
    for scripts in ["/etc/cron.hourly", "/etc/cron.daily"] {
        entries.extend(files(Path::new(scripts)).iter().filter_map(|script| of_script(script)));
    }
    entries.extend(of_units(&units.map(PathBuf::from), None));
    judge(&entries, &app.config, &me, owner.as_ref(), report);
}

/// The owner of a directory, where root works on that of another user.
fn other_owner(dir: &Path) -> Option<Account> {
    owner_for(dir).map(|(uid, _)| Account::of(uid))
}

/// Says for whom an answer does not hold, where root asks on a directory of another user.
pub fn not_asked_as_owner(dir: &Path) -> String {
    other_owner(dir).map_or_else(String::new, |owner| {
        format!("; this asked as root, not as {}", owner.name)
    })
}

/// What a program says; nothing where it fails.
fn told(command: Command) -> String {
    let name = command.get_program().to_string_lossy().into_owned();
    process::output(&name, command, None, Duration::from_secs(5))
        .ok()
        .filter(|output| output.success)
        .map(|output| output.text())
        .unwrap_or_default()
}

/// What a table or a unit holds, if it is a regular file.
fn text_of(path: &Path) -> Option<String> {
    atomic::read_text(path, 1 << 20).ok()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let items = fs::read_dir(dir).into_iter().flatten().flatten();
    items.map(|item| item.path()).collect()
}

fn judge(entries: &[Entry], config: &Config, me: &Account, owner: Option<&Account>, report: &mut Report) {
    let project = &config.project;
    let own: Vec<&Entry> = entries
        .iter()
        .filter(|entry| entry.projects.contains(project))
        .collect();
    let live: Vec<&Entry> = own.iter().copied().filter(|entry| entry.idle.is_none()).collect();
    match (live.first(), own.iter().find_map(|entry| entry.idle.clone())) {
        (Some(entry), _) if me.is(&entry.user) || entry.user == "root" => {
            report.ok("schedule", format!("{} runs backup-all", entry.from));
        }
        (Some(entry), _) => report.warn(
            "schedule",
            format!(
                "{} runs backup-all as {}, and these checks are those of {}: run doctor as {1}, too",
                entry.from, entry.user, me.name
            ),
        ),
        (None, Some(idle)) => report.warn("schedule", idle),
        (None, None) => report.warn(
            "schedule",
            format!(
                "nothing was found that runs backup-all: from a clone make install-timer N8N_DIR=..., or into {} the line: {}",
                match owner {
                    Some(owner) => format!("the crontab of {} (crontab -u {0} -e)", owner.name),
                    None => "your crontab (crontab -e)".to_owned(),
                },
                advised(project)
            ),
        ),
    }
    for (index, first) in live.iter().enumerate() {
        if let Some(second) = live.iter().skip(index + 1).find(|second| meet(first, second)) {
            report.warn(
                "schedule",
                format!(
                    "{} and {} run it at the same minute: the second finds the lock held, and reports a failure; remove one",
                    first.from, second.from
                ),
            );
        }
        for other in entries
            .iter()
            .filter(|other| other.idle.is_none() && meet(first, other) && !other.projects.contains(project))
        {
            if let Some(dir) = other.projects.iter().find(|dir| shares_lock(dir, config)) {
                report.warn(
                    "schedule",
                    format!(
                        "{} backs up {} at the same minute, with the same {}: the second is refused; move one by 20 minutes, \
                         or set a BACKUP_LOCK_FILE for each",
                        other.from,
                        dir.display(),
                        config.lock_file.display()
                    ),
                );
            }
        }
    }
}

/// Whether two begin together on some day.
fn meet(one: &Entry, other: &Entry) -> bool {
    let every = |entry: &Entry| entry.when.1 == "* * *";
    !one.when.0.is_empty() && one.when.0 == other.when.0 && (one.when.1 == other.when.1 || every(one) || every(other))
}

/// Whether another n8n directory of the same owner takes the lock file that this one takes. Another user's is no obstacle.
fn shares_lock(dir: &Path, config: &Config) -> bool {
    let uid = |dir: &Path| {
        dir.metadata()
            .map(|meta| std::os::unix::fs::MetadataExt::uid(&meta))
            .ok()
    };
    let theirs = || Config::load(dir).or_else(|_| Config::without_env_file(dir));
    dir != config.project
        && dir.join("backups").is_dir()
        && uid(dir) == uid(&config.project)
        && theirs().is_ok_and(|theirs| theirs.lock_file == config.lock_file)
}

/// The entry that a crontab needs; with the scripts, `scripts/make/cron.sh` writes the same.
fn advised(project: &Path) -> String {
    let script = project.join("scripts/backup-all.sh");
    match (script.exists(), env::current_exe()) {
        (false, Ok(program)) => format!("0 2 * * * {} -q -C {} backup-all", quoted(&program), quoted(project)),
        _ => {
            let log = project.join("logs/backup.log");
            format!("0 2 * * * {} >> {} 2>&1", quoted(&script), quoted(&log))
        }
    }
}

/// A path as a word of a crontab's command.
fn quoted(path: &Path) -> String {
    let path = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./@%+:,-".contains(c);
    let word = match path.chars().all(plain) {
        true => path.into_owned(),
        false => format!("'{}'", path.replace('\'', r"'\''")),
    };
    // cron takes a bare percent sign for a newline.
    word.replace('%', r"\%")
}

/// The entries of a crontab that run backup-all. One without an `account` names the user in each line.
fn of_crontab(text: &str, from: &str, account: Option<&Account>) -> Vec<Entry> {
    let mut found = Vec::new();
    for line in text.lines().map(str::trim_start) {
        if !line.starts_with(|c: char| c.is_ascii_digit() || "*@".contains(c)) {
            continue;
        }
        let mut fields = line.split_whitespace();
        let when = match line.starts_with('@') {
            true => match fields.next().unwrap_or_default() {
                "@daily" | "@midnight" => ("0 0".to_owned(), "* * *".to_owned()),
                other => (other.to_owned(), String::new()),
            },
            false => {
                let fields: Vec<&str> = fields.by_ref().take(5).map(bare).collect();
                let (time, days) = fields.split_at(fields.len().min(2));
                (time.join(" "), days.join(" "))
            }
        };
        let user = match account {
            Some(account) => account.name.clone(),
            None => fields.next().unwrap_or_default().to_owned(),
        };
        // Up to a percent sign that stands bare.
        let command = line.replace(r"\%", "\0");
        let command = command.split('%').next().unwrap_or_default().replace('\0', "%");
        found.push(Entry {
            from: from.to_owned(),
            user,
            projects: projects(&words(&command), account),
            when,
            idle: None,
        });
    }
    found.retain(|entry| !entry.projects.is_empty());
    found
}

/// A script that cron has `run-parts` run, if that runs backup-all. Those of a name with a dot Debian's passes over.
fn of_script(script: &Path) -> Option<Entry> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    let name = script.file_name()?.to_str()?;
    let is_run = name.chars().all(is_name) && script.metadata().ok()?.permissions().mode() & 0o111 != 0;
    let text = text_of(script).filter(|_| is_run)?;
    let commands = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let mut words = words(&commands.collect::<Vec<_>>().join("\n"));
    // It may be a link to the script itself.
    words.push(script.display().to_string());
    let entry = Entry {
        from: script.display().to_string(),
        user: "root".to_owned(),
        projects: projects(&words, None),
        when: Default::default(),
        idle: None,
    };
    Some(entry).filter(|entry| !entry.projects.is_empty())
}

/// A number without zeros before it.
fn bare(field: &str) -> &str {
    match field.trim_start_matches('0') {
        "" => "0",
        rest => rest,
    }
}

/// A timer of systemd that is enabled.
struct Timer {
    text: String,
    /// The service that it starts, without `.service`.
    starts: String,
}

/// The timers that are enabled in directories of units, by their names: whatever wants or requires them. A link may
/// lead to a unit that another one stands for, or that is masked.
fn enabled_timers(dirs: &[PathBuf]) -> BTreeMap<String, Timer> {
    let by = |dir: &PathBuf| dir.extension().is_some_and(|end| end == "wants" || end == "requires");
    let wanting = dirs.iter().rev().flat_map(|dir| files(dir)).filter(by);
    let links = wanting.flat_map(|dir| files(&dir));
    let timers = links.filter_map(|link| {
        let name = unit_name(&link, ".timer")?;
        let text = text_of(&timer_file(dirs, &name).unwrap_or(link)).filter(|text| !text.trim().is_empty())?;
        let starts = match values(&text, "Unit").pop() {
            Some(unit) => specified(&unit, &name).strip_suffix(".service")?.to_owned(),
            None => name.clone(),
        };
        Some((name, Timer { text, starts }))
    });
    timers.collect()
}

/// A timer's file in the first directory that has one, be it masked there; of an instance without one its template's.
fn timer_file(dirs: &[PathBuf], name: &str) -> Option<PathBuf> {
    let template = name.split_once('@').map(|(template, _)| format!("{template}@"));
    let names = [Some(name.to_owned()), template].into_iter().flatten();
    let mut found = names.flat_map(|name| dirs.iter().map(move |dir| dir.join(format!("{name}.timer"))));
    found.find(|file| file.symlink_metadata().is_ok())
}

/// The services of directories of units that run backup-all, and their timers; of several of a name the first one
/// counts. One without an `account` is the system's.
fn of_units(dirs: &[PathBuf], account: Option<&Account>) -> Vec<Entry> {
    let timers = enabled_timers(dirs);
    let manager = match account {
        Some(_) => "systemctl --user",
        None => "systemctl",
    };
    let mut found = Vec::new();
    let mut known = BTreeSet::new();
    for unit in dirs.iter().flat_map(|dir| files(dir)) {
        if !known.insert(unit.file_name().map(OsStr::to_owned)) {
            continue;
        }
        let (Some(name), Some(text)) = (unit_name(&unit, ".service"), text_of(&unit)) else {
            continue;
        };
        // Of a template each instance that has no unit of its own.
        let is_own = |starts: &str| dirs.iter().any(|dir| dir.join(format!("{starts}.service")).exists());
        let is_it =
            |starts: &str| starts == name || name.ends_with('@') && starts.starts_with(&name) && !is_own(starts);
        let entry = |timer: Option<(&String, &Timer)>| {
            let started = timer.map_or(&name, |(_, timer)| &timer.starts);
            let commands = values(&text, "ExecStart")
                .into_iter()
                .map(|command| specified(command.trim_start_matches(['@', '-', ':', '+', '!']), started));
            let idle = match (timer, account) {
                (None, _) => Some(format!(
                    "{} runs backup-all, but no timer of it is enabled: {manager} enable --now {name}{}.timer",
                    unit.display(),
                    if name.ends_with('@') { "NAME" } else { "" }
                )),
                (Some(_), Some(account)) if !Path::new(LINGERING).join(&account.name).exists() => Some(format!(
                    "{} runs backup-all only while {1} is logged in: loginctl enable-linger {1}",
                    unit.display(),
                    account.name
                )),
                _ => None,
            };
            let of_timer = timer.map(|(timer, _)| timer).unwrap_or(&name);
            Entry {
                from: unit.with_file_name(format!("{of_timer}.timer")).display().to_string(),
                user: match account {
                    Some(account) => account.name.clone(),
                    None => values(&text, "User")
                        .pop()
                        .map_or_else(|| "root".to_owned(), |user| specified(&user, started)),
                },
                projects: commands
                    .flat_map(|command| projects(&words(&command), account))
                    .collect(),
                when: timer.map_or_else(Default::default, |(_, timer)| {
                    of_calendar(values(&timer.text, "OnCalendar").first().map_or("", String::as_str))
                }),
                idle,
            }
        };
        let its: Vec<_> = timers
            .iter()
            .filter(|(_, timer)| is_it(&timer.starts))
            .map(Some)
            .collect();
        match its.is_empty() {
            true => found.push(entry(None)),
            false => found.extend(its.into_iter().map(entry)),
        }
    }
    found.retain(|entry| !entry.projects.is_empty());
    found
}

fn unit_name(unit: &Path, kind: &str) -> Option<String> {
    Some(unit.file_name()?.to_str()?.strip_suffix(kind)?.to_owned())
}

/// The values of a key of a unit: of a command one for each line. An empty one takes back those before it.
fn values(unit: &str, key: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in unit.replace("\\\n", " ").lines() {
        match line.split_once('=') {
            Some((name, value)) if name.trim() == key => match value.trim() {
                "" => found.clear(),
                value => found.push(value.to_owned()),
            },
            _ => {}
        }
    }
    found
}

/// A value of a unit of that name, with the specifiers of an instance filled in.
fn specified(value: &str, unit: &str) -> String {
    let instance = unit.split_once('@').map_or("", |(_, instance)| instance);
    let unescaped = instance.replace('-', "/").replace(r"\x2d", "-");
    value
        .replace("%%", "\0")
        .replace("%i", instance)
        .replace("%I", &unescaped)
        .replace("%f", &format!("/{unescaped}"))
        .replace('\0', "%")
}

/// When a timer runs, as a crontab would say it.
fn of_calendar(text: &str) -> (String, String) {
    let every = || "* * *".to_owned();
    let (days, time) = text.rsplit_once(' ').unwrap_or(("", text));
    match (text, time.split(':').map(bare).collect::<Vec<_>>().as_slice()) {
        ("daily", _) => ("0 0".to_owned(), every()),
        (_, [hour, minute, ..]) if matches!(days, "" | "*-*-*") => (format!("{minute} {hour}"), every()),
        (_, [hour, minute, ..]) => (format!("{minute} {hour}"), days.to_owned()),
        _ => (text.to_owned(), String::new()),
    }
}

/// The words of a command, as a shell tells them apart, and the words of those that are commands themselves (`sh -c '...'`).
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match quote {
            Some(mark) if mark == c => quote = None,
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() || ";&|<>()`".contains(c) => words.extend(word.take()),
            _ if c == '\\' && quote != Some('\'') => word.get_or_insert_default().extend(chars.next()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    let commands = words.iter().filter(|word| word.contains(char::is_whitespace));
    let within: Vec<String> = commands.flat_map(|command| self::words(command)).collect();
    words.extend(within);
    words
}

/// The n8n directories whose backup the words of a command run. What is not there runs nothing.
fn projects(words: &[String], account: Option<&Account>) -> Vec<PathBuf> {
    let home = |rest: &str| Some(account?.home.join(rest));
    let whole = |word: &str| match ["~/", "$HOME/", "${HOME}/", "%h/"]
        .iter()
        .find_map(|start| word.strip_prefix(start))
    {
        Some(rest) => home(rest),
        None => Some(PathBuf::from(word)),
    };
    // Also of an option that holds its value.
    let value = |word: &str| word.split_once('=').and_then(|(_, value)| whole(value));
    let paths: Vec<PathBuf> = words
        .iter()
        .flat_map(|word| [whole(word), value(word)])
        .flatten()
        .collect();
    let above = |path: &Path| path.parent()?.parent()?.canonicalize().ok();
    let files = paths.iter().filter(|path| path.is_absolute() && path.is_file());

    let scripts = files.clone().cloned().map(link_followed);
    let mut found: Vec<PathBuf> = scripts
        .filter(|script| script.ends_with("backup-all.sh"))
        .filter_map(|script| above(&script))
        .collect();
    let here = ["backup-all", "scripts/backup-all.sh", "./scripts/backup-all.sh"];
    if let Some(word) = words.iter().find(|word| here.contains(&word.as_str())) {
        let dirs = paths.iter().filter(|path| path.is_absolute() && path.is_dir());
        let dirs: Vec<PathBuf> = dirs.filter_map(|dir| dir.canonicalize().ok()).collect();
        if dirs.is_empty() {
            let programs = files.filter(|path| path.ends_with("bin/n8n-backup"));
            found.extend(programs.filter_map(|program| above(&program.canonicalize().ok()?)));
        }
        found.extend(dirs.into_iter().filter_map(|dir| match word.as_str() {
            "backup-all" => Some(dir),
            script => above(&link_followed(
                Some(dir.join(script)).filter(|script| script.is_file())?,
            )),
        }));
    }
    found
}

/// What a link of a script leads to, as the script itself follows it: links among the directories stay as they are.
fn link_followed(mut script: PathBuf) -> PathBuf {
    // One that leads to itself is no file, and does not come here.
    while let Ok(target) = fs::read_link(&script) {
        script.pop();
        script.push(target);
    }
    script
}

#[cfg(test)]
mod tests;
