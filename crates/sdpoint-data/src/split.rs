//! The splits of a data set.

use std::fmt;

/// The part of a data set that is learnt from, or the part that is kept for
/// measuring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Learnt from.
    Train,
    /// Kept for measuring.
    Test,
}

impl Split {
    /// Folder and shard names that mean this split, the preferred one first.
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Split::Train => &["train"],
            Split::Test => &["test", "val", "valid", "validation"],
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Split::Train => "train",
            Split::Test => "test",
        })
    }
}
