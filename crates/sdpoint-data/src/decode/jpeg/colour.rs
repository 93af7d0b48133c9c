//! Four inks to RGB.

/// CMYK pixels to RGB; `to_inks` makes inks of the first three samples.
///
/// All who write such files store how much is *not* inked, 255 for bare paper,
/// and the decoder gives the opposite of what is stored.
pub(super) fn inks_to_rgb(samples: &[u8], to_inks: impl Fn([u8; 3]) -> [u8; 3]) -> Vec<u8> {
    let (pixels, _) = samples.as_chunks::<4>();
    let pixels = pixels.iter().map(|pixel| pixel.map(|v| 255 - v));
    let rgb = |[a, b, c, key]: [u8; 4]| {
        let bare = |v: u8| ((u32::from(v) * u32::from(key) + 127) / 255) as u8;
        to_inks([a, b, c]).map(bare)
    };
    pixels.flat_map(rgb).collect()
}

/// The first three inks of YCCK, which are the opposite of what JFIF's
/// conversion gives, in 16 bits after the point as in libjpeg.
pub(super) fn from_ycck([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    let y = i32::from(y);
    let (cb, cr) = (i32::from(cb) - 128, i32::from(cr) - 128);
    let red = y + ((91_881 * cr + HALF) >> 16);
    let green = y + ((-22_554 * cb - 46_802 * cr + HALF) >> 16);
    let blue = y + ((116_130 * cb + HALF) >> 16);
    [red, green, blue].map(|v| 255 - v.clamp(0, 255) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primary_colours_are_the_opposite_of_those_of_jfif() {
        assert_eq!(from_ycck([76, 85, 255]), [1, 255, 255]);
        assert_eq!(from_ycck([255, 128, 128]), [0, 0, 0]);
        assert_eq!(from_ycck([29, 255, 107]), [255, 255, 1]);
    }

    #[test]
    fn inks_darken() {
        let rgb = |cmyk: [u8; 4]| inks_to_rgb(&cmyk, |inks| inks);
        assert_eq!(rgb([0, 0, 0, 0]), [255; 3]);
        assert_eq!(rgb([0, 0, 0, 255]), [0; 3]);
        assert_eq!(rgb([0, 128, 255, 0]), [255, 127, 0]);
        // No luma is full ink in the complement: bare paper, darkened by the key.
        assert_eq!(inks_to_rgb(&[255, 127, 127, 127], from_ycck), [128; 3]);
    }
}
