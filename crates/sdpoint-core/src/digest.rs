//! Checksums as text.

/// The bytes of a digest in lower-case hexadecimal digits.
///
/// ```
/// assert_eq!(sdpoint_core::digest::hex(&[0x0f, 0xa0]), "0fa0");
/// ```
pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
