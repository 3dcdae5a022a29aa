//! What a user can do about an error: a field of the error, not half of its sentence. The log gives it a line of its own.

use std::fmt::{self, Display};
use std::io;

use anyhow::Error;

use super::error::{Missing, Told};

/// An error, or the context of one, with what to do about it.
#[derive(Debug)]
pub struct Hinted {
    message: String,
    hint: String,
}

/// `message`, with what to do about it. It may be an error itself, or the context of one.
pub fn hinted(message: impl Display, hint: impl Display) -> Hinted {
    Hinted {
        message: message.to_string(),
        hint: hint.to_string(),
    }
}

impl Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Hinted {}

/// What to do about an error, as far as that is known.
pub fn hint_of(error: &Error) -> Option<&str> {
    let within_io = || {
        let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
        causes.find_map(|cause| cause.get_ref()?.downcast_ref::<Hinted>())
    };
    if let Some(hinted) = error.downcast_ref::<Hinted>().or_else(within_io) {
        return Some(hinted.hint.as_str()).filter(|hint| !hint.is_empty());
    }
    if let Some(missing) = error.downcast_ref::<Missing>() {
        return Some(missing.hint);
    }
    hint_of(&error.downcast_ref::<Told>()?.error)
}

/// An error with its causes and what to do about it, in one line.
pub fn explained(error: &Error) -> String {
    match hint_of(error) {
        Some(hint) => format!("{error:#}; {hint}"),
        None => format!("{error:#}"),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{anyhow, Context as _};

    use super::*;

    #[test]
    fn a_hint_is_found_wherever_it_stands() {
        let alone = Error::new(hinted("no gpg", "install gnupg"));
        assert_eq!(
            (alone.to_string().as_str(), hint_of(&alone)),
            ("no gpg", Some("install gnupg"))
        );
        let below = alone.context("Cannot encrypt");
        assert_eq!(explained(&below), "Cannot encrypt: no gpg; install gnupg");
        let above = anyhow!("refused")
            .context(hinted("No engine", "start it"))
            .context("Cannot begin");
        assert_eq!(explained(&above), "Cannot begin: No engine: refused; start it");
        // What an error is can still be asked.
        assert!(Error::new(io::Error::other("x"))
            .context(hinted("y", "z"))
            .is::<io::Error>());
        let within = Err::<(), _>(io::Error::other(hinted("not a file", "remove it"))).context("Cannot read x");
        assert_eq!(explained(&within.unwrap_err()), "Cannot read x: not a file; remove it");
        let told = Error::new(Told {
            text: "told".to_owned(),
            error: Error::new(hinted("a", "b")),
        });
        assert_eq!(hint_of(&told), Some("b"));
        let missing = Error::new(Missing {
            what: "no gzip",
            hint: "install gzip",
        });
        assert_eq!(
            explained(&missing.context("Cannot unpack")),
            "Cannot unpack: no gzip; install gzip"
        );
        assert_eq!(explained(&anyhow!("nothing").context("known")), "known: nothing");
        assert_eq!(hint_of(&Error::new(hinted("recalled", ""))), None);
    }
}
