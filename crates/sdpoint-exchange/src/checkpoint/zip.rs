//! The directory of a zip archive of uncompressed files, as PyTorch writes it.

use std::collections::HashMap;
use std::ops::Range;

use super::bytes::Bytes;

/// The range of each file of an archive, by name.
pub(super) type Directory<'a> = HashMap<&'a str, Range<usize>>;

const END: &[u8; 4] = b"PK\x05\x06";
const END_64: &[u8; 4] = b"PK\x06\x06";
const LOCATOR_64: &[u8; 4] = b"PK\x06\x07";
const ENTRY: &[u8; 4] = b"PK\x01\x02";
const LOCAL: &[u8; 4] = b"PK\x03\x04";
/// Length of the end record without its comment, which has up to 65,535 bytes.
const END_LENGTH: usize = 22;
/// The id of the extra field with an entry's 64-bit sizes.
const EXTRA_64: u16 = 1;

/// The files of an archive (PKWARE's APPNOTE.TXT, version 6.3).
pub(super) fn directory(archive: &[u8]) -> Result<Directory<'_>, String> {
    let end = end(archive).ok_or("the list of its files at its end is missing: it is truncated")?;
    let (count, at) = list(archive, end).ok_or("its end is damaged")?;
    let mut files = HashMap::new();
    let list = Bytes::at(archive, at).ok_or("its end points outside of it")?;
    // PyTorch has an option to leave out checksums, and then writes 0 for all.
    let has_checksums =
        entries(list, count).any(|(_, entry)| entry.is_some_and(|entry| entry.crc != 0));
    for (index, entry) in entries(list, count) {
        let damaged = || format!("entry {index} of the list of its files is damaged");
        let entry = entry.ok_or_else(damaged)?;
        let name = std::str::from_utf8(entry.name).map_err(|_| damaged())?;
        if entry.encrypted || entry.method != 0 {
            // TorchScript compresses its source code.
            if !needed(name) {
                continue;
            }
            return Err(format!(
                "'{name}' in it is compressed or encrypted; PyTorch stores files as they are"
            ));
        }
        let range = entry
            .data(archive)
            .ok_or_else(|| format!("'{name}' in it reaches past its end: it is truncated"))?;
        if has_checksums && entry.crc != crc32fast::hash(&archive[range.clone()]) {
            return Err(format!(
                "'{name}' in it does not have the checksum that was saved with it, \
                 or was saved without its content"
            ));
        }
        if files.insert(name, range).is_some() {
            return Err(format!("it has two files '{name}'"));
        }
    }
    Ok(files)
}

/// The numbered entries of the central directory, up to the first invalid one,
/// which is `None`.
fn entries<'a>(mut list: Bytes<'a>, count: u64) -> impl Iterator<Item = (u64, Option<Entry<'a>>)> {
    let mut whole = true;
    (0..count).map_while(move |index| {
        let entry = whole.then(|| Entry::read(&mut list))?;
        whole = entry.is_some();
        Some((index, entry))
    })
}

/// Whether reading weights needs the file of that name.
fn needed(name: &str) -> bool {
    name.ends_with("data.pkl") || name.starts_with("data/") || name.contains("/data/")
}

/// The offset of the end record: the last occurrence of its signature.
fn end(archive: &[u8]) -> Option<usize> {
    let last = archive.len().checked_sub(END_LENGTH)?;
    let first = last.saturating_sub(usize::from(u16::MAX));
    (first..=last)
        .rev()
        .find(|&place| archive[place..].starts_with(END))
}

/// The number of files, and the offset of the central directory.
fn list(archive: &[u8], end: usize) -> Option<(u64, u64)> {
    let mut record = Bytes::at(archive, end as u64 + 10)?;
    let count = record.u16()?;
    record.u32()?;
    let at = record.u32()?;
    if count != u16::MAX && at != u32::MAX {
        return Some((u64::from(count), u64::from(at)));
    }
    let mut locator = Bytes::at(archive, (end as u64).checked_sub(20)?)?;
    if locator.take(4)? != LOCATOR_64 {
        return None;
    }
    locator.u32()?;
    let mut record = Bytes::at(archive, locator.u64()?)?;
    if record.take(4)? != END_64 {
        return None;
    }
    record.take(28)?;
    let count = record.u64()?;
    record.u64()?;
    Some((count, record.u64()?))
}

/// An entry of the central directory.
struct Entry<'a> {
    name: &'a [u8],
    encrypted: bool,
    method: u16,
    crc: u32,
    size: u64,
    header: u64,
}

impl<'a> Entry<'a> {
    fn read(list: &mut Bytes<'a>) -> Option<Self> {
        if list.take(4)? != ENTRY {
            return None;
        }
        list.take(4)?;
        let flags = list.u16()?;
        let method = list.u16()?;
        list.take(4)?;
        let crc = list.u32()?;
        let packed = list.u32()?;
        let size = list.u32()?;
        let name = list.u16()?;
        let extra = list.u16()?;
        let comment = list.u16()?;
        list.take(8)?;
        let header = list.u32()?;
        let name = list.take(u64::from(name))?;
        let mut extra = Bytes::new(list.take(u64::from(extra))?);
        list.take(u64::from(comment))?;
        let mut entry = Self {
            name,
            encrypted: flags & 1 != 0,
            method,
            crc,
            size: u64::from(size),
            header: u64::from(header),
        };
        if [packed, size, header].contains(&u32::MAX) {
            let mut wide = extra_64(&mut extra)?;
            if size == u32::MAX {
                entry.size = wide.u64()?;
            }
            if packed == u32::MAX {
                wide.u64()?;
            }
            if header == u32::MAX {
                entry.header = wide.u64()?;
            }
        }
        Some(entry)
    }

    /// The range of its content, which follows a local header.
    fn data(&self, archive: &[u8]) -> Option<Range<usize>> {
        let mut local = Bytes::at(archive, self.header)?;
        if local.take(4)? != LOCAL {
            return None;
        }
        local.take(22)?;
        let name = local.u16()?;
        let extra = local.u16()?;
        local.take(u64::from(name) + u64::from(extra))?;
        let start = local.place();
        local.take(self.size)?;
        Some(start..local.place())
    }
}

/// The extra field with 64-bit sizes.
fn extra_64<'a>(fields: &mut Bytes<'a>) -> Option<Bytes<'a>> {
    loop {
        let kind = fields.u16()?;
        let length = fields.u16()?;
        let field = fields.take(u64::from(length))?;
        if kind == EXTRA_64 {
            return Some(Bytes::new(field));
        }
    }
}
