//! A cursor over bytes that may be truncated.

use std::ops::Range;

/// A cursor over a slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes<'a> {
    all: &'a [u8],
    place: usize,
}

impl<'a> Bytes<'a> {
    pub fn new(all: &'a [u8]) -> Self {
        Self { all, place: 0 }
    }

    /// A cursor at an offset, if the slice is that long.
    pub fn at(all: &'a [u8], place: u64) -> Option<Self> {
        let place = usize::try_from(place).ok()?;
        (place <= all.len()).then_some(Self { all, place })
    }

    /// A cursor over a part of a slice, whose offsets count from the start of
    /// the whole slice.
    pub fn within(all: &'a [u8], part: Range<usize>) -> Self {
        let end = part.end.min(all.len());
        Self {
            all: &all[..end],
            place: part.start.min(end),
        }
    }

    /// The current offset.
    pub fn place(&self) -> usize {
        self.place
    }

    /// The length of the whole slice.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// The range of a part of the slice.
    pub fn range_of(&self, part: &[u8]) -> Option<Range<usize>> {
        let start = part.as_ptr().addr().checked_sub(self.all.as_ptr().addr())?;
        let end = start.checked_add(part.len())?;
        (end <= self.all.len()).then_some(start..end)
    }

    /// The next `count` bytes, if there are as many.
    pub fn take(&mut self, count: u64) -> Option<&'a [u8]> {
        let end = self.place.checked_add(usize::try_from(count).ok()?)?;
        let taken = self.all.get(self.place..end)?;
        self.place = end;
        Some(taken)
    }

    /// The next bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N as u64)?.try_into().ok()
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// The bytes before the next line feed, which is skipped.
    pub fn line(&mut self) -> Option<&'a [u8]> {
        let rest = &self.all[self.place..];
        let length = rest.iter().position(|&byte| byte == b'\n')?;
        self.place += length + 1;
        Some(&rest[..length])
    }
}
