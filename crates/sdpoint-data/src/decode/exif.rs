//! The orientation in EXIF data, the only entry that is used.

use crate::image::Orientation;

const ORIENTATION: u16 = 0x0112;
const SHORT: u16 = 3;
const LONG: u16 = 4;

/// The orientation in EXIF data (a TIFF header and its first directory, with or
/// without `Exif\0\0` before it); upright if there is no valid one.
pub(super) fn orientation(exif: &[u8]) -> Orientation {
    let tiff = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    read(tiff)
        .and_then(Orientation::from_exif)
        .unwrap_or_default()
}

fn read(tiff: &[u8]) -> Option<u32> {
    let big_endian = match tiff.get(..4)? {
        b"MM\0*" => true,
        b"II*\0" => false,
        _ => return None,
    };
    let short = |at: usize| {
        let bytes = tiff.get(at..)?.first_chunk()?;
        Some(if big_endian {
            u16::from_be_bytes(*bytes)
        } else {
            u16::from_le_bytes(*bytes)
        })
    };
    let long = |at: usize| {
        let bytes = tiff.get(at..)?.first_chunk()?;
        Some(if big_endian {
            u32::from_be_bytes(*bytes)
        } else {
            u32::from_le_bytes(*bytes)
        })
    };
    let directory = long(4)? as usize;
    let count = usize::from(short(directory)?);
    for entry in 0..count {
        let at = directory.checked_add(2 + 12 * entry)?;
        if short(at)? != ORIENTATION {
            continue;
        }
        return match short(at + 2)? {
            SHORT => short(at + 8).map(u32::from),
            LONG => long(at + 8),
            _ => None,
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exif(big_endian: bool, kind: u16, value: u32) -> Vec<u8> {
        let short = |v: u16| {
            if big_endian {
                v.to_be_bytes()
            } else {
                v.to_le_bytes()
            }
        };
        let long = |v: u32| {
            if big_endian {
                v.to_be_bytes()
            } else {
                v.to_le_bytes()
            }
        };
        let mut bytes = b"Exif\0\0".to_vec();
        bytes.extend(if big_endian { b"MM\0*" } else { b"II*\0" });
        bytes.extend(long(8));
        bytes.extend(short(2));
        for (tag, kind, value) in [(0x010f, 2, 0), (ORIENTATION, kind, value)] {
            bytes.extend(short(tag));
            bytes.extend(short(kind));
            bytes.extend(long(1));
            if kind == SHORT {
                bytes.extend(short(value as u16));
                bytes.extend([0, 0]);
            } else {
                bytes.extend(long(value));
            }
        }
        bytes
    }

    #[test]
    fn both_byte_orders_and_all_values_are_read() {
        for value in 1..=8 {
            let expected = Orientation::from_exif(value).unwrap();
            for big_endian in [false, true] {
                for kind in [SHORT, LONG] {
                    let bytes = exif(big_endian, kind, value);
                    assert_eq!(orientation(&bytes), expected);
                    assert_eq!(orientation(&bytes[6..]), expected);
                }
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_upright() {
        for value in [0, 9, 0xffff] {
            assert_eq!(
                orientation(&exif(true, SHORT, value)),
                Orientation::default()
            );
        }
        let sound = exif(false, SHORT, 6);
        for len in 0..sound.len() - 4 {
            assert_eq!(orientation(&sound[..len]), Orientation::default());
        }
        let mut far = sound;
        far[10..14].copy_from_slice(&[0xff; 4]);
        assert_eq!(orientation(&far), Orientation::default());
    }
}
