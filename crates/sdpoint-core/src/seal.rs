//! Seals: a digest of a file's content within the file, so that a file that was
//! edited since it was written can be told from one that was not.
//!
//! The seal is 64 hexadecimal digits after [`SEAL`]: the SHA-256 of the content
//! with zeros in their place.

use sha2::{Digest, Sha256};

use crate::digest::hex;

/// The name of the field that has the seal, in any text or binary format.
pub const SEAL: &str = "sdpoint_sha256";

/// The digits of a seal that is not set yet.
pub const BLANK: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The most bytes between the name and the digits: quotes, a tag, a length.
const MAX_GAP: usize = 4;

/// Sets the seal of a file's content, which has [`SEAL`] and after it [`BLANK`].
///
/// # Panics
/// If the content has none.
///
/// ```
/// use sdpoint_core::seal::{BLANK, SEAL, is_sealed, seal};
///
/// let mut text = format!("x = 1\n# {SEAL}: {BLANK}\n").into_bytes();
/// seal(&mut text);
/// assert!(is_sealed(&text));
/// text[4] = b'2';
/// assert!(!is_sealed(&text));
/// ```
pub fn seal(content: &mut [u8]) {
    let start = place(content).expect("the content has a blank seal");
    let digits = &mut content[start..start + BLANK.len()];
    assert_eq!(digits, BLANK.as_bytes(), "the seal is blank");
    let digest = hex(&Sha256::digest(&*content));
    content[start..start + BLANK.len()].copy_from_slice(digest.as_bytes());
}

/// Whether the content is as it was when it was sealed.
pub fn is_sealed(content: &[u8]) -> bool {
    let Some(start) = place(content) else {
        return false;
    };
    let end = start + BLANK.len();
    let mut hasher = Sha256::new();
    hasher.update(&content[..start]);
    hasher.update(BLANK);
    hasher.update(&content[end..]);
    hex(&hasher.finalize()).as_bytes() == &content[start..end]
}

/// The start of the digits after the first name that has some.
fn place(content: &[u8]) -> Option<usize> {
    let name = SEAL.as_bytes();
    let names = content.windows(name.len()).enumerate();
    let ends = names.filter(|(_, window)| *window == name);
    ends.map(|(start, _)| start + name.len()).find_map(|end| {
        let rest = &content[end..];
        let gap = rest.iter().take(MAX_GAP);
        let gap = gap.take_while(|byte| !byte.is_ascii_hexdigit()).count();
        let digits = rest.get(gap..gap + BLANK.len())?;
        digits
            .iter()
            .all(u8::is_ascii_hexdigit)
            .then_some(end + gap)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_change_breaks_a_seal() {
        // As in Python, JSON and a protocol buffer.
        for gap in [": ", "\":\"", "\u{12}@"] {
            let mut content = format!("{SEAL} is {SEAL}{gap}{BLANK} end").into_bytes();
            assert!(!is_sealed(&content));
            seal(&mut content);
            assert!(is_sealed(&content));
            for place in 0..content.len() {
                let mut edited = content.clone();
                edited[place] ^= 1;
                assert!(!is_sealed(&edited), "{place}");
            }
            assert!(!is_sealed(&[&content[..], b"\n"].concat()));
            assert!(!is_sealed(&content[..content.len() - 1]));
        }
        assert!(!is_sealed(b""));
    }
}
