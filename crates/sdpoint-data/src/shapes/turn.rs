//! Directions without a sine: the standard library's may differ in the last
//! bit between machines.

use std::sync::LazyLock;

/// Directions in a full turn: a multiple of the corner counts of all figures.
pub(super) const TURN: usize = 240;

/// The unit vector `step / TURN` of a full turn from the x axis; steps wrap.
pub(super) fn direction(step: u16) -> [f32; 2] {
    static TABLE: LazyLock<[[f32; 2]; TURN]> = LazyLock::new(|| {
        // Cosine and sine of 1.5 degrees. Each product below adds less than
        // 1e-15 of error, which single precision does not show.
        let (cos, sin) = (0.999_657_324_975_557_3_f64, 0.026_176_948_307_873_153_f64);
        let (mut x, mut y) = (1.0_f64, 0.0_f64);
        std::array::from_fn(|_| {
            let here = [x as f32, y as f32];
            (x, y) = (x * cos - y * sin, x * sin + y * cos);
            here
        })
    });
    TABLE[usize::from(step) % TURN]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_are_cosine_and_sine() {
        for step in 0..TURN as u16 {
            let angle = f64::from(step) / TURN as f64 * std::f64::consts::TAU;
            let [x, y] = direction(step);
            assert!((f64::from(x) - angle.cos()).abs() < 1e-7, "step {step}");
            assert!((f64::from(y) - angle.sin()).abs() < 1e-7, "step {step}");
        }
    }
}
