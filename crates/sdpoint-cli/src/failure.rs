//! Failures of commands: a message, a hint, and the exit code.

use std::error::Error;
use std::io;

use crate::output::{note, one_line};

/// The result of a command.
pub type Outcome = Result<(), Failure>;

/// The class of a failure, which decides the exit code.
///
/// The codes are documented in `docs/exit-codes.md` and in `--help`; scripts
/// rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// An invalid command line.
    Usage = 2,
    /// Images, class folders or data files that cannot be used.
    Data = 3,
    /// A model file or a checkpoint that cannot be used.
    Model = 4,
    /// An instance that does not exist, or a budget that none meets.
    Instance = 5,
    /// The loss is no longer finite.
    Diverged = 6,
    /// A file that cannot be read or written, or a transfer that failed.
    Files = 7,
    /// Stopped by the user, with a checkpoint to resume from.
    Interrupted = 130,
}

/// A failure, as shown to the user.
#[derive(Debug)]
pub struct Failure {
    class: Class,
    /// `None` if the reader of our output has closed it: nothing to report.
    message: Option<String>,
    hint: Option<String>,
}

impl Failure {
    /// A failure with this message.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self {
            class,
            message: Some(message.into()),
            hint: None,
        }
    }

    /// A failure with the message of an error and of its sources.
    pub fn from_error(class: Class, error: &dyn Error) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            // Some messages include that of their source already.
            if !message.contains(&cause_text) {
                message = format!("{message}: {cause_text}");
            }
            source = cause.source();
        }
        Self::new(class, message)
    }

    /// Adds what failed, at the start of the message.
    pub fn of(mut self, what: &str) -> Self {
        self.message = self.message.map(|message| format!("{what}: {message}"));
        self
    }

    /// Adds advice for the user.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds advice if there is none yet.
    pub fn or_hint(self, hint: impl Into<String>) -> Self {
        match self.hint {
            Some(_) => self,
            None => self.hint(hint),
        }
    }

    /// A failure to read or write a file; the message has its name.
    pub fn io(message: impl Into<String>, kind: io::ErrorKind) -> Self {
        let failure = Self::new(Class::Files, message);
        match kind {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => {
                failure.hint("free some space and try again; existing files are intact")
            }
            _ => failure,
        }
    }

    /// A failure to write to standard output. A closed pipe, as by `head`, ends
    /// the command silently.
    pub fn output(error: &io::Error) -> Self {
        let mut failure = Self::io(format!("standard output: {error}"), error.kind());
        if error.kind() == io::ErrorKind::BrokenPipe {
            failure.message = None;
        }
        failure
    }

    /// Prints the failure, and returns the exit code.
    pub fn report(&self) -> u8 {
        let Some(message) = &self.message else {
            return 0;
        };
        note(&format!("error: {}", bounded(message)));
        if let Some(hint) = &self.hint {
            note(&format!("hint: {}", bounded(hint)));
        }
        self.class as u8
    }
}

/// Bounds the length of a message, and escapes line breaks except before
/// indented lines: text quoted from files or the command line must not look
/// like another message.
fn bounded(message: &str) -> String {
    const LONGEST: usize = 1400;
    const LONGEST_LINE: usize = 400;
    const INDENTED: &str = "\n  ";
    let lines: Vec<&str> = message.trim_end().split(INDENTED).collect();
    let longest = if lines.len() == 1 {
        LONGEST
    } else {
        LONGEST_LINE
    };
    let lines: Vec<String> = lines
        .into_iter()
        .map(|line| cut(&one_line(line), longest))
        .collect();
    cut(&lines.join(INDENTED), LONGEST)
}

/// The first `longest` characters of a text.
fn cut(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Display;

    use super::*;

    #[derive(Debug)]
    struct Outer {
        quotes: bool,
        inner: io::Error,
    }

    impl Display for Outer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            if self.quotes {
                write!(f, "outer: {}", self.inner)
            } else {
                f.write_str("outer")
            }
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.inner)
        }
    }

    #[test]
    fn a_cause_is_printed_once() {
        for quotes in [true, false] {
            let inner = io::Error::other("inner");
            let failure = Failure::from_error(Class::Data, &Outer { quotes, inner });
            assert_eq!(failure.message.as_deref(), Some("outer: inner"));
        }
    }

    #[test]
    fn messages_are_bounded_and_cannot_imitate_others() {
        let mixed = "in\u{202e}'a\nerror: b': bad\n";
        assert_eq!(bounded(mixed), "in\\u{202e}'a\\nerror: b': bad");
        assert_eq!(bounded("it lacks:\n  a\n  b"), "it lacks:\n  a\n  b");
        for long in [
            "\n".repeat(70_000),
            "é".repeat(70_000),
            "\n  x".repeat(70_000),
        ] {
            assert!(bounded(&format!("{long}!")).chars().count() < 1500);
        }
        let sections = format!("misfit\n  missing: {}\n  left over: b", "a, ".repeat(1000));
        assert!(bounded(&sections).ends_with("…\n  left over: b"));
    }

    #[test]
    fn a_full_disk_comes_with_advice_and_a_closed_pipe_is_silent() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let failure = Failure::io("model.safetensors: full", full.kind());
        assert!(failure.hint.is_some());
        assert_eq!(failure.class as u8, 7);
        let gone = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(Failure::output(&gone).report(), 0);
    }
}
