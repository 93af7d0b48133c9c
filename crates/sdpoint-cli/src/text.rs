//! Text files as people's editors save them.

/// Decodes UTF-8, or UTF-16 with a byte-order mark.
///
/// # Errors
/// What is wrong, for the end of a message.
pub fn decode(bytes: &[u8]) -> Result<String, String> {
    let utf16 = |rest: &[u8], unit: fn([u8; 2]) -> u16| {
        let (units, odd) = rest.as_chunks::<2>();
        let units: Vec<u16> = units.iter().map(|&pair| unit(pair)).collect();
        let text = odd.is_empty().then(|| String::from_utf16(&units).ok());
        text.flatten()
            .ok_or("it is not UTF-16 text, although it starts like it")
    };
    let text = match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes)?,
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes)?,
        [0xef, 0xbb, 0xbf, rest @ ..] | rest => String::from_utf8(rest.to_vec())
            .map_err(|_| "it is not UTF-8 text: convert it, in an editor or with iconv")?,
    };
    if text.contains('\0') {
        return Err(
            "it has null characters: it is not text, or UTF-16 without a byte-order mark; \
                    save it as UTF-8"
                .into(),
        );
    }
    Ok(text)
}
