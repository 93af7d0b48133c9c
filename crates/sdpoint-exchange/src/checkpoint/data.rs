//! Where a tensor's bytes are in a file.

use std::borrow::Cow;
use std::ops::Range;

/// Bytes in a file: a range of it as it is, or decoded from text in which each
/// byte is a character of Latin-1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Data {
    range: Range<usize>,
    /// The number of bytes; less than the range has if they are encoded. Text of
    /// the same length as its bytes is equal to them.
    length: usize,
}

impl Data {
    /// Bytes encoded as the UTF-8 text in a range, `length` of them.
    pub fn encoded(text: Range<usize>, length: usize) -> Self {
        Self {
            range: text,
            length,
        }
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// The bytes, if they are in the file.
    pub fn read<'f>(&self, file: &'f [u8]) -> Option<Cow<'f, [u8]>> {
        let bytes = file.get(self.range.clone())?;
        if self.length == bytes.len() {
            return Some(bytes.into());
        }
        let text = std::str::from_utf8(bytes).ok()?;
        let bytes = text.chars().map(|c| u8::try_from(u32::from(c)));
        let bytes: Vec<u8> = bytes.collect::<Result<_, _>>().ok()?;
        (bytes.len() == self.length).then_some(bytes.into())
    }
}

impl From<Range<usize>> for Data {
    fn from(range: Range<usize>) -> Self {
        Self {
            length: range.len(),
            range,
        }
    }
}
