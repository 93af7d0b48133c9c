//! Image sizes on the command line: `224`, or `HxW` such as `224x320`.

/// Parses a height and a width in pixels.
pub fn parse(text: &str) -> Result<[usize; 2], String> {
    let side = |text: &str| text.parse::<usize>().ok().filter(|&side| side > 0);
    let sides = match text.split_once(['x', '×']) {
        Some((height, width)) => side(height).zip(side(width)),
        None => side(text).map(|side| (side, side)),
    };
    match sides {
        Some((height, width)) => Ok([height, width]),
        None => Err("give one side such as 224, or height and width such as 224x320".into()),
    }
}

/// Formats a size as [`parse`] accepts it.
pub fn text([height, width]: [usize; 2]) -> String {
    if height == width {
        height.to_string()
    } else {
        format!("{height}x{width}")
    }
}

/// A size for messages: `32x32 pixels`.
pub fn pixels([height, width]: [usize; 2]) -> String {
    format!("{height}x{width} pixels")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_they_are_written() {
        for size in [[224, 224], [224, 320], [1, 2]] {
            assert_eq!(parse(&text(size)), Ok(size));
        }
        for bad in ["", "0", "x", "224x", "224x0", "-1", "2.5", "1x2x3"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
