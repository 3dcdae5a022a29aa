//! The one packer, in both directions: `tar`, run in a helper container. GNU's and busybox's are made use of, and what
//! either of them does not do is done here.

mod names;

use std::io::{self, ErrorKind, Read, Write};
use std::sync::mpsc;

use anyhow::{bail, ensure, Context as _, Result};

use self::names::{List, Matching};
use super::Changed;
use crate::app::App;
use crate::engine::{ContainerSpec, Docker, Exec};
use crate::formats::tar::{Names, Part, Place, Scanner, Summary};
use crate::process::{hinted, Chain, ChildInput, ChildOutput, Count, Finished, Input, Observer, Pending};

/// What messages call the packer.
const PACKER: &str = "tar";
/// The variable with the patterns of what is left out, one on each line.
const LEFT_OUT: &str = "LEFT_OUT";
/// The variable with the directory of the database.
const DATABASE_DIR: &str = "DATABASE_DIR";
/// The variable with the patterns of what else is in the root directory and left out.
const ELSEWHERE: &str = "ELSEWHERE";

/// Takes `all` or `data`, a directory, and what is mounted in there or in the root directory. Prints every name, each ended
/// by NUL, one more NUL, and tar archives, one after another. `data` leaves out at the top of each directory, and beside
/// the database, what is our own, unless an exchange has begun in there, because some data are then nowhere else.
///
/// What tar says goes to standard error sorted: what could not be read, what has changed, sockets; at last its exit status,
/// how many there are of each, whether something was left out and whether the archive was given up. That line also proves
/// that tar came to its end.
const PACK: &str = include_str!("pack.sh");

/// Takes a directory and what is named as seen from the root directory. Prints every name, each ended by NUL.
const LIST: &str = r#"
cd -- "$1" || exit 1
shift
find . ! -type s -print0 2>/dev/null
[ $# -eq 0 ] || (cd / && find "$@" ! -type s -print0 2>/dev/null)
exit 0
"#;

/// Takes a directory and how many components of the names are left out. Unpacks standard input, and says which tar did.
const UNPACK: &str = r#"
export LC_ALL=C
command -v tar >/dev/null || { echo 'the image has no tar' >&2; exit 127; }
cd -- "$1" || exit 1
options=--numeric-owner
[ "$2" -eq 0 ] || options="$options --strip-components=$2"
case $(tar --version 2>/dev/null) in
  *GNU*) tar $options --warning=no-timestamp -xpf - && echo GNU ;;
  *) EXTRACT_UNSAFE_SYMLINKS=1 tar $options -xpf - && echo other ;;
esac
"#;

/// Where tar runs, and what it reads or writes.
#[derive(Clone, Copy)]
pub struct Packer<'a> {
    pub app: &'a App,
    pub docker: &'a Docker,
    pub container: &'a str,
}

/// What is packed, and from where.
#[derive(Clone, Copy)]
pub struct Packing<'a> {
    /// What of it.
    pub what: What<'a>,
    /// A directory.
    pub dir: &'a str,
    /// More, named as seen from the root directory.
    pub others: &'a [String],
    /// What the archive has of the directory.
    pub home: &'a Part,
}

/// What is packed of a directory.
#[derive(Clone, Copy)]
pub enum What<'a> {
    /// Everything.
    All,
    /// Not what is our own.
    Data(&'a LeftOut),
}

/// What is left out beside what is our own at the top, by the names in the archive.
#[derive(Default)]
pub struct LeftOut {
    /// Files.
    pub files: Vec<String>,
    /// The directory of the database, in which copies and restores of it work; empty where it is in none.
    pub dir: String,
    /// Directories of which the archive holds nothing more here.
    pub contents: Vec<String>,
}

/// A directory that is being packed.
pub struct Reading {
    /// The names in it.
    pub names: Names,
    /// Whether there is more than directories that something is mounted at.
    pub holds_data: bool,
    /// The archives of it and of what else was named, one after another.
    pub stream: Stream,
    /// Where it is there, the packer ends when it is dropped.
    pub leash: Option<ChildInput>,
}

/// What tar said of what it read.
#[derive(Debug, Default)]
pub struct Said {
    /// How many files changed while they were read, with some of them.
    pub changed: (u64, Vec<String>),
    /// How many sockets were left out, with some of them.
    pub sockets: (u64, Vec<String>),
    /// Whether something of our own was left out.
    pub staged: bool,
}

impl Packing<'_> {
    fn left_out(&self) -> &[String] {
        match self.what {
            What::All => &[],
            What::Data(left_out) => &left_out.files,
        }
    }

    /// The variables that tell what is left out.
    fn variables(&self) -> [(&'static str, String); 3] {
        let files: Vec<String> = self.left_out().iter().map(|name| pattern(name)).collect();
        let (dir, contents) = match self.what {
            What::All => ("", &[][..]),
            What::Data(left_out) => (&*left_out.dir, &left_out.contents[..]),
        };
        let contents: Vec<String> = contents.iter().map(|dir| format!("{}/*", pattern(dir))).collect();
        [
            (LEFT_OUT, files.join("\n")),
            (DATABASE_DIR, dir.to_owned()),
            (ELSEWHERE, contents.join("\n")),
        ]
    }

    /// The packer with its arguments.
    fn argv(&self) -> Vec<String> {
        let what = match self.what {
            What::All => "all",
            What::Data(_) => "data",
        };
        let argv = ["sh", "-c", PACK, "sh", what, self.dir].map(str::to_owned);
        let nested = self.home.emptied.iter().map(|name| format!("./{name}"));
        argv.into_iter()
            .chain(nested)
            .chain(self.others.iter().cloned())
            .collect()
    }
}

impl Reading {
    fn of((mut names, holds_data, stream): Listed, packing: Packing<'_>, leash: Option<ChildInput>) -> Self {
        packing.left_out().iter().for_each(|name| names.remove(name.as_bytes()));
        Self {
            names,
            holds_data,
            stream,
            leash,
        }
    }
}

/// Begins to pack in a container that is made for it alone, which takes the engine less than one that stays. It is made meanwhile and
/// reads nothing before `ready` returns. Gives nothing where it did not come to that: then another way tells why.
pub fn pack_alone(
    docker: &Docker,
    chain: &mut Chain,
    spec: ContainerSpec<'_>,
    packing: Packing<'_>,
    ready: impl FnOnce(),
) -> Result<Option<Reading>> {
    let variables = packing.variables();
    let spec = ContainerSpec {
        env: &variables.each_ref().map(|(name, value)| (*name, value.as_str())),
        ..spec
    };
    let argv = packing.argv();
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    let command = docker.run_leashed(spec, &argv);
    let (stdin, stream) = chain.stream(PACKER, command, Input::Piped)?;
    let mut stdin = stdin.context("tar has no input")?;
    ready();
    // A client that has ended takes no line.
    let _ = stdin.write_all(b"\n");
    let listed = listed(chain, stream, packing.home).recv();
    Ok(listed.ok().map(|listed| Reading::of(listed, packing, Some(stdin))))
}

/// What the packer printed before the archives, and whether there is more than directories that something is mounted at.
type Listed = (Names, bool, Stream);
type Stream = Box<dyn Read + Send>;

/// Takes the names from what the packer prints.
fn listed(chain: &mut Chain, mut stream: ChildOutput, home: &Part) -> mpsc::Receiver<Listed> {
    let (listed, names) = mpsc::channel();
    let mut list = List::of(home.clone());
    chain.task("listing", move |clock| {
        let mut block = vec![0; 64 << 10];
        loop {
            let n = stream.read(&mut block)?;
            clock.tick();
            if n == 0 {
                // The packer tells more of it.
                return Err(io::Error::new(ErrorKind::BrokenPipe, "the list of names was cut off").into());
            }
            if let Some(rest) = list.take(&block[..n]) {
                let rest = io::Cursor::new(rest.to_vec());
                let stream: Stream = Box::new(rest.chain(stream));
                // Nobody waits for it where the chain was given up.
                let _ = listed.send((list.names, list.holds_data, stream));
                return Ok(());
            }
        }
    });
    names
}

impl Packer<'_> {
    /// Begins to pack.
    pub fn pack(self, chain: &mut Chain, packing: Packing<'_>) -> Result<Reading> {
        let variables = packing.variables();
        let how = Exec {
            env: &variables.each_ref().map(|(name, value)| (*name, value.as_str())),
            ..Exec::default()
        };
        let argv = packing.argv();
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        let command = self.docker.exec(self.container, how, &argv);
        let (_, stream) = chain.stream(PACKER, command, Input::Null)?;
        let listed = listed(chain, stream, packing.home).recv();
        // The chain tells why there is nothing.
        let listed = listed.unwrap_or_else(|_| (Names::default(), false, Box::new(io::empty())));
        Ok(Reading::of(listed, packing, None))
    }

    /// Those of the names that are there now.
    pub fn still_there(self, dir: &str, others: &[String], names: &Names) -> Result<Vec<String>> {
        let mut chain = self.app.chain();
        let others = others.iter().map(String::as_str);
        let argv: Vec<&str> = ["sh", "-c", LIST, "sh", dir].into_iter().chain(others).collect();
        let command = self.docker.exec(self.container, Exec::default(), &argv);
        let (_, stdout) = chain.stream("find", command, Input::Null)?;
        let list = Matching::of(names.clone());
        let seen = chain.pump("listing", stdout, io::sink(), list);
        Ok(seen.get(&chain.finish()?)?.found)
    }

    /// Unpacks an archive into `dir`, without the first `strip` components of its names. `observer` sees the archive.
    pub fn unpack<O: Observer>(
        self,
        mut chain: Chain,
        archive: impl Read + Send + 'static,
        dir: &str,
        strip: usize,
        observer: O,
    ) -> Result<(O, Rework)> {
        let how = Exec {
            interactive: true,
            ..Exec::default()
        };
        let strip = strip.to_string();
        let argv = ["sh", "-c", UNPACK, "sh", dir, &strip];
        let command = self.docker.exec(self.container, how, &argv);
        let (stdin, stdout) = chain.stream(PACKER, command, Input::Piped)?;
        let stdin = stdin.context("tar has no input")?;
        let seen = chain.pump("unpacking", archive, stdin, (observer, Count::default()));
        let said = chain.collect("reading from tar", stdout, 64 << 10);
        let finished = chain.finish().map_err(explained)?;
        let rework = match said.get(&finished)?.trim_ascii() {
            b"GNU" => Rework::None,
            b"other" => Rework::Needed,
            _ => bail!("tar did not come to its end"),
        };
        Ok((seen.get(&finished)?.0, rework))
    }

    /// Reads back what was unpacked into `dir`, each part by itself.
    pub fn look(self, dir: &str, parts: &[Part]) -> Result<Vec<Summary>> {
        let mut chain = self.app.chain();
        let packing = Packing {
            what: What::All,
            dir,
            others: &[],
            home: &Part::default(),
        };
        let reading = self.pack(&mut chain, packing)?;
        let seen = chain.pump("reading back", reading.stream, io::sink(), scanners(parts));
        let finished = chain.finish()?;
        said(&finished)?;
        seen.get(&finished)?.into_iter().map(Scanner::finish).collect()
    }

    /// Gives directories their times, and symbolic links their owners and times, which busybox's tar does not.
    pub fn rework(self, dir: &str, places: &[Place]) -> Result<()> {
        if places.is_empty() {
            return Ok(());
        }
        let mut chain = self.app.chain();
        let how = Exec {
            interactive: true,
            ..Exec::default()
        };
        let argv = ["sh", "-c", "cd -- \"$1\" && exec sh -e -s", "sh", dir];
        let (stdin, stdout) = chain.spawn("sh", self.docker.exec(self.container, how, &argv), Input::Piped)?;
        let stdin = stdin.context("sh has no input")?;
        chain.pump("setting owners and times", io::Cursor::new(script(places)), stdin, ());
        let said: Pending<Vec<u8>> = chain.collect("reading from sh", stdout, 64 << 10);
        let finished = chain.finish()?;
        ensure!(
            said.get(&finished)?.trim_ascii() == b"done",
            "owners and times were not set to the end"
        );
        Ok(())
    }
}

/// A name as a pattern that matches it alone.
fn pattern(name: &str) -> String {
    let mut pattern = String::new();
    for c in name.chars() {
        if matches!(c, '*' | '?' | '[' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

/// Whether what was unpacked is to be reworked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rework {
    None,
    Needed,
}

/// What lists each of the parts.
pub fn scanners(parts: &[Part]) -> Vec<Scanner> {
    let scanner = |part: &Part| Scanner::new().part(part.clone()).listed();
    parts.iter().map(scanner).collect()
}

/// Compares what was unpacked with the archive: names, owners, modes, times to the second, links and contents.
pub fn compare(archive: &Summary, there: &Summary, what: &str) -> Result<()> {
    // The directory itself is a member of what is read back, and not always of the archive.
    let members = |summary: &Summary| summary.members - u64::from(summary.root.is_some());
    let counts = |summary: &Summary| (members(summary), summary.files, summary.bytes);
    let (wanted, found) = (counts(archive), counts(there));
    ensure!(
        wanted == found,
        "the archive holds {} members, {} files and {} bytes, and {what} now {}, {} and {}",
        wanted.0,
        wanted.1,
        wanted.2,
        found.0,
        found.1,
        found.2
    );
    if let (Some(wanted), Some(found)) = (archive.listing, there.listing) {
        ensure!(
            wanted == found,
            "names, owners, modes, times or contents of what was unpacked are not those of the archive"
        );
    }
    Ok(())
}

/// What tar said, of a chain that has come to its end.
///
/// # Errors
/// When something could not be read; with [`Changed`] when tar gave up what has changed meanwhile.
pub fn said(finished: &Finished) -> Result<Said> {
    said_in(&finished.last_lines(PACKER))
}

fn said_in(lines: &[String]) -> Result<Said> {
    let numbers = lines.last().and_then(|line| line.strip_prefix("exit "));
    let numbers = numbers.map(|text| text.split(' ').map(str::parse).collect::<Result<Vec<u64>, _>>());
    let Some(Ok(numbers)) = numbers else {
        bail!("tar did not come to its end");
    };
    let [status, errors, changed, sockets, ours, cut] = numbers[..] else {
        bail!("tar did not come to its end");
    };
    let of = |kind: &str| -> Vec<String> {
        let lines = lines.iter().filter_map(|line| line.strip_prefix(kind));
        lines.map(|line| line.trim_start_matches("tar: ").to_owned()).collect()
    };
    ensure!(
        errors == 0,
        "{errors} of what it holds cannot be read, and would be missing: {}",
        of("error ").join("; ")
    );
    if cut > 0 {
        let hint = "set BACKUP_HELPER_IMAGE in .env to an image with GNU's tar, which goes on";
        let error = anyhow::Error::new(hinted("the tar of busybox ends there", hint));
        return Err(error.context(Changed("a file became shorter while it was read".to_owned())));
    }
    // From 3 on it was ended, whatever it had said before.
    ensure!(
        status == 0 || (changed > 0 && status < 3),
        "tar ended with exit code {status}"
    );
    Ok(Said {
        changed: (changed, of("changed ")),
        sockets: (sockets, of("socket ")),
        staged: ours > 0,
    })
}

/// Adds what to do where the image has no tar.
pub fn explained(error: anyhow::Error) -> anyhow::Error {
    let text = format!("{error:#}");
    if text.contains("the image has no tar") {
        let hint = "set BACKUP_HELPER_IMAGE in .env to one that has it, such as alpine, and pull it";
        return anyhow::Error::new(hinted("the image of the helper container has no tar", hint));
    }
    error
}

/// The commands that set what is known of `places`.
fn script(places: &[Place]) -> Vec<u8> {
    let mut script = Vec::new();
    for place in places {
        let mut name = b"'./".to_vec();
        for byte in &place.name {
            match byte {
                b'\'' => name.extend_from_slice(b"'\\''"),
                byte => name.push(*byte),
            }
        }
        name.extend_from_slice(b"'\n");
        let known = &place.properties;
        if place.is_link {
            script.extend(format!("chown -h {}:{} -- ", known.uid, known.gid).bytes());
            script.extend_from_slice(&name);
        }
        script.extend(format!("touch -h -d @{} -- ", known.mtime).bytes());
        script.extend_from_slice(&name);
    }
    script.extend_from_slice(b"echo done\n");
    script
}

#[cfg(test)]
mod tests;
