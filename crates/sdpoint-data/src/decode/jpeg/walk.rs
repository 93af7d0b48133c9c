//! Parses the segments of a JPEG file and rewrites them for the decoders.
//!
//! The decoders see only what they need, in the simplest form: no metadata,
//! whose thumbnails contain markers; no padding; components numbered from 1; one
//! marker that states the colour space; Huffman tables, which Motion JPEG leaves
//! out; and an end marker.

use super::Refusal;
use super::frame::Frame;
use super::tables::{STANDARD_SLOTS, standard_tables};
use crate::decode::exif;
use crate::error::ImageError;
use crate::image::Orientation;

/// The most scans of a file. Each costs a pass over the picture; encoders write
/// about ten.
const MAX_SCANS: usize = 100;

/// The colour space of the components.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colours {
    Grey,
    YCbCr,
    Rgb,
    Cmyk,
    Ycck,
}

/// The content of a file, from its start to its end marker.
pub(super) struct Walked {
    pub frame: Frame,
    pub colours: Colours,
    /// The components of each scan.
    pub scans: Vec<Vec<usize>>,
    pub orientation: Orientation,
    /// Whether there was an end marker.
    pub ended: bool,
    /// Whether the last scan's data lacks its barrier.
    pub open: bool,
    /// The rewritten file, without the end marker.
    pub plain: Vec<u8>,
}

pub(super) fn walk(bytes: &[u8]) -> Result<Walked, ImageError> {
    let mut walk = Walk::default();
    let ended = walk.until(bytes, |_| false)?;
    walk.finish(ended)
}

/// The frame header, without what follows it.
pub(super) fn frame(bytes: &[u8]) -> Result<Frame, ImageError> {
    let mut walk = Walk::default();
    let ended = walk.until(bytes, |walk| walk.frame.is_some())?;
    walk.frame.ok_or(no_frame(ended))
}

/// The error of a file without a frame header.
fn no_frame(ended: bool) -> ImageError {
    match ended {
        true => Refusal::Damaged.into(),
        false => Refusal::Truncated.into(),
    }
}

const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const DHT: u8 = 0xc4;
const DQT: u8 = 0xdb;
const DRI: u8 = 0xdd;
const RST0: u8 = 0xd0;
const RST7: u8 = 0xd7;
const TEM: u8 = 0x01;

/// The code of the next marker from `at` on, and the start of its segment. Bytes
/// between segments are skipped, as in other readers.
fn next_marker(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    let mut at = at + bytes.get(at..)?.iter().position(|&b| b == 0xff)?;
    loop {
        match *bytes.get(at + 1)? {
            0xff => at += 1,
            0 => at += 2 + bytes.get(at + 2..)?.iter().position(|&b| b == 0xff)?,
            code => return Some((code, at + 2)),
        }
    }
}

/// The end of the segment whose length is at `body`; `None` if the file ends
/// before that.
fn segment_end(bytes: &[u8], body: usize) -> Result<Option<usize>, Refusal> {
    let Some(length) = bytes.get(body..).and_then(|rest| rest.first_chunk()) else {
        return Ok(None);
    };
    // The length includes its own two bytes.
    let length = usize::from(u16::from_be_bytes(*length));
    let end = body + length;
    match length {
        0 | 1 => Err(Refusal::Damaged),
        _ => Ok((end <= bytes.len()).then_some(end)),
    }
}

#[derive(Default)]
struct Walk {
    frame: Option<Frame>,
    scans: Vec<Vec<usize>>,
    orientation: Option<Orientation>,
    jfif: bool,
    /// The colour transform stated by Adobe's marker.
    adobe: Option<u8>,
    /// Slots of Huffman tables that are defined, DC and AC.
    defined: [[bool; 4]; 2],
    /// Whether a scan has used a slot that was not.
    lacks_tables: bool,
    /// Units between restarts; 0 if there are none.
    restart: u16,
    /// Whether the last scan has fewer restarts than it should.
    cut: bool,
    /// Whether the body ends with a sequential scan's data, without a barrier.
    open: bool,
    /// The lowest bit of each coefficient that was coded, for each component.
    coded: Vec<[u8; 64]>,
    /// Everything between the start and the end marker.
    body: Vec<u8>,
}

/// The least length of a JFIF segment; libjpeg ignores shorter ones.
const JFIF: usize = 14;

/// Bits that no Huffman table has a code for, as codes of ones only are reserved.
/// After the data of a scan they stop a decoder that expects more.
pub(super) const BARRIER: [u8; 32] = {
    let mut ones = [0; 32];
    let mut at = 0;
    while at < ones.len() {
        ones[at] = 0xff;
        at += 2;
    }
    ones
};

/// No bit of a coefficient was coded, in `Walk::coded`: bits count from 1.
const UNCODED: u8 = 0;

impl Walk {
    /// Takes segments and scans until the function is true, or to the end. Returns
    /// whether the end marker was there.
    fn until(&mut self, bytes: &[u8], stop: impl Fn(&Self) -> bool) -> Result<bool, ImageError> {
        let mut at = 2;
        while !stop(self) {
            let Some((code, body)) = next_marker(bytes, at) else {
                return Ok(false);
            };
            if code == EOI || (code == SOI && !self.scans.is_empty()) {
                return Ok(code == EOI);
            }
            if matches!(code, RST0..=SOI | TEM) {
                at = body;
                continue;
            }
            let Some(end) = segment_end(bytes, body)? else {
                return Ok(false);
            };
            at = end;
            let segment = &bytes[body + 2..end];
            match code {
                SOS => at = self.scan(segment, bytes, end)?,
                _ => self.segment(code, segment)?,
            }
        }
        Ok(false)
    }

    fn segment(&mut self, code: u8, segment: &[u8]) -> Result<(), ImageError> {
        self.close_scan();
        match code {
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                if self.frame.is_some() {
                    // Several frames begin with a header of the hierarchy.
                    return Err(Refusal::Damaged.into());
                }
                let frame = Frame::parse(code, segment)?;
                self.body.extend(frame.segment());
                self.coded = vec![[UNCODED; 64]; frame.components.len()];
                self.frame = Some(frame);
            }
            0xde | 0xdf => return Err(Refusal::Hierarchical.into()),
            DHT => {
                self.define(segment)?;
                self.keep(code, segment);
            }
            DQT => self.keep(code, segment),
            DRI => {
                self.restart = segment.first_chunk().map_or(0, |b| u16::from_be_bytes(*b));
                self.keep(code, segment);
            }
            0xe0 => self.jfif |= segment.starts_with(b"JFIF\0") && segment.len() >= JFIF,
            0xe1 if segment.starts_with(b"Exif\0\0") => {
                self.orientation
                    .get_or_insert_with(|| exif::orientation(segment));
            }
            0xee if segment.starts_with(b"Adobe") => {
                self.adobe = segment.get(11).copied().or(self.adobe);
            }
            _ => {}
        }
        Ok(())
    }

    fn keep(&mut self, code: u8, segment: &[u8]) {
        self.body.extend([0xff, code]);
        self.body.extend((segment.len() as u16 + 2).to_be_bytes());
        self.body.extend(segment);
    }

    /// Records which tables a DHT segment defines.
    fn define(&mut self, mut segment: &[u8]) -> Result<(), ImageError> {
        while let [slot, rest @ ..] = segment {
            let (counts, rest) = rest.split_first_chunk::<16>().ok_or(Refusal::Damaged)?;
            let symbols = counts.iter().map(|&n| usize::from(n)).sum();
            segment = rest.get(symbols..).ok_or(Refusal::Damaged)?;
            let [class, slot] = [slot >> 4, slot & 15].map(usize::from);
            let known = self.defined.get_mut(class).and_then(|c| c.get_mut(slot));
            *known.ok_or(Refusal::Damaged)? = true;
        }
        Ok(())
    }

    /// Takes a scan's header, and its data from `start` on; where that ends.
    fn scan(&mut self, header: &[u8], bytes: &[u8], start: usize) -> Result<usize, ImageError> {
        self.close_scan();
        let frame = self.frame.as_ref().ok_or(Refusal::Damaged)?;
        let Some((&count, rest)) = header.split_first() else {
            return Err(Refusal::Damaged.into());
        };
        let (listed, band) = rest
            .split_at_checked(2 * usize::from(count))
            .ok_or(Refusal::Damaged)?;
        let &[first, last, bits] = band else {
            return Err(Refusal::Damaged.into());
        };
        let (listed, _) = listed.as_chunks::<2>();
        let mut components = Vec::new();
        let mut segment = vec![0xff, SOS, 0, 6 + 2 * count, count];
        for &[id, slots] in listed {
            let component = frame.component(id).ok_or(Refusal::Damaged)?;
            if components.contains(&component) {
                return Err(Refusal::Damaged.into());
            }
            components.push(component);
            segment.extend([component as u8 + 1, slots]);
            let [dc, ac] = [slots >> 4, slots & 15].map(usize::from);
            let lacks = |class: usize, slot: usize| {
                self.defined[class].get(slot).is_none_or(|known| !known)
            };
            let (needs_dc, needs_ac) = match frame.progressive {
                false => (true, true),
                // Refining a DC coefficient takes a single bit without code.
                true => (first == 0 && bits >> 4 == 0, first > 0),
            };
            for (class, slot) in [(needs_dc, (0, dc)), (needs_ac, (1, ac))]
                .into_iter()
                .filter_map(|(needed, table)| needed.then_some(table))
            {
                let is_standard = !frame.progressive && slot < STANDARD_SLOTS;
                match (lacks(class, slot), is_standard) {
                    (true, false) => return Err(Refusal::Damaged.into()),
                    (lacks, _) => self.lacks_tables |= lacks,
                }
            }
        }
        if components.is_empty() || !frame.may_interleave(&components) {
            return Err(Refusal::Damaged.into());
        }
        // Sequential frames have but one band; some encoders write another.
        let [first, last, bits] = match frame.progressive {
            true => [first, last, bits],
            false => [0, 63, 0],
        };
        if first > last || last > 63 || (frame.progressive && first == 0 && last > 0) {
            return Err(Refusal::Damaged.into());
        }
        for &component in &components {
            let coded = &mut self.coded[component][usize::from(first)..=usize::from(last)];
            if !frame.progressive && coded[0] != UNCODED {
                return Err(Refusal::Damaged.into());
            }
            coded.fill((bits & 15) + 1);
        }
        segment.extend([first, last, bits]);
        self.body.extend(segment);
        let start_of_data = self.body.len();
        let end = copy_data(bytes, start, &mut self.body);
        let data = &self.body[start_of_data..];
        let restarts = data
            .windows(2)
            .filter(|mark| matches!(mark, [0xff, RST0..=RST7]));
        self.cut = match usize::from(self.restart) {
            0 => false,
            units => restarts.count() + 1 < frame.units(&components).div_ceil(units),
        };
        self.open = !frame.progressive;
        self.scans.push(components);
        if self.scans.len() > MAX_SCANS {
            return Err(Refusal::Scans.into());
        }
        Ok(end)
    }

    /// Ends the data of a sequential scan with a barrier. In progressive files,
    /// zune-jpeg expects the next marker at once.
    fn close_scan(&mut self) {
        if std::mem::take(&mut self.open) {
            self.body.extend(BARRIER);
        }
    }

    fn finish(self, ended: bool) -> Result<Walked, ImageError> {
        let frame = self.frame.ok_or(no_frame(ended))?;
        // Every component must have been coded, at least its DC coefficients. In a
        // file without an end marker, all bits of all coefficients must have been.
        let missing = match ended {
            true => self.coded.iter().any(|bits| bits[0] == UNCODED),
            false => self.cut || self.coded.iter().flatten().any(|&lowest| lowest != 1),
        };
        if missing {
            return Err(Refusal::Truncated.into());
        }
        let colours = colours(&frame, self.jfif, self.adobe);
        let mut plain = vec![0xff, SOI];
        plain.extend(adobe_segment(colours));
        if self.lacks_tables {
            plain.extend(standard_tables());
        }
        plain.extend(self.body);
        Ok(Walked {
            frame,
            colours,
            scans: self.scans,
            orientation: self.orientation.unwrap_or_default(),
            ended,
            open: self.open,
            plain,
        })
    }
}

/// Copies entropy-coded data up to the first marker other than restart markers,
/// and returns its position.
fn copy_data(bytes: &[u8], start: usize, out: &mut Vec<u8>) -> usize {
    let mut at = start;
    while let Some(step) = bytes[at..].iter().position(|&b| b == 0xff) {
        let mark = at + step;
        out.extend(&bytes[at..mark]);
        match bytes.get(mark + 1) {
            Some(&code @ (0 | RST0..=RST7)) => {
                out.extend([0xff, code]);
                at = mark + 2;
            }
            // Padding before a marker.
            Some(0xff) => at = mark + 1,
            _ => return mark,
        }
    }
    out.extend(&bytes[at..]);
    bytes.len()
}

/// The colour space, by the rules of libjpeg, which all decoders follow.
fn colours(frame: &Frame, jfif: bool, adobe: Option<u8>) -> Colours {
    let ids: Vec<u8> = frame.components.iter().map(|c| c.id).collect();
    match (ids.len(), adobe) {
        (1, _) => Colours::Grey,
        (3, _) if jfif => Colours::YCbCr,
        (3, Some(0)) => Colours::Rgb,
        (3, Some(_)) => Colours::YCbCr,
        (3, None) if ids == *b"RGB" => Colours::Rgb,
        (3, None) => Colours::YCbCr,
        (_, None | Some(0)) => Colours::Cmyk,
        // Encoders write 2; the others are treated alike.
        (_, Some(_)) => Colours::Ycck,
    }
}

/// Adobe's marker of the colour transform, which all decoders support.
fn adobe_segment(colours: Colours) -> Vec<u8> {
    let transform = match colours {
        Colours::Grey => return Vec::new(),
        Colours::Rgb | Colours::Cmyk => 0,
        Colours::YCbCr => 1,
        Colours::Ycck => 2,
    };
    let mut segment = vec![0xff, 0xee, 0, 14];
    segment.extend(b"Adobe\0\x64\0\0\0\0");
    segment.push(transform);
    segment
}
