//! The one-dimensional transforms of F(m, 3), of lines of inputs, taps or outputs. The transforms
//! of a tile apply them to its columns and then to its rows.

use std::f32::consts::{FRAC_1_SQRT_2 as HALF_ROOT, SQRT_2 as ROOT};

use rten_simd::Isa;
use rten_simd::ops::{BitOps, FloatOps, NumOps};

/// The transforms of F(`OUTPUTS`, 3), with `INPUTS = OUTPUTS + 2` points. `A`, `B` and `G` are the
/// matrices of Lavin and Gray.
pub(super) trait Transforms<const OUTPUTS: usize, const INPUTS: usize> {
    /// `G g`: the values at the points of a line of three taps.
    fn transform_kernel<I: Isa>(isa: I, g: [I::F32; 3]) -> [I::F32; INPUTS];

    /// `Bᵀ d`: the values at the points of a line of inputs.
    fn transform_input<I: Isa>(isa: I, d: [I::F32; INPUTS]) -> [I::F32; INPUTS];

    /// `Aᵀ m`: the outputs of a line from its products at the points.
    fn transform_output<I: Isa>(isa: I, m: [I::F32; INPUTS]) -> [I::F32; OUTPUTS];
}

/// F(2, 3) at the points 0, ±1 and ∞.
pub(super) struct F2;

impl Transforms<2, 4> for F2 {
    #[inline(always)]
    fn transform_kernel<I: Isa>(isa: I, g: [I::F32; 3]) -> [I::F32; 4] {
        let ops = isa.f32();
        let half = ops.splat(0.5);
        let even = ops.mul(half, ops.add(g[0], g[2]));
        let odd = ops.mul(half, g[1]);
        [g[0], ops.add(even, odd), ops.sub(even, odd), g[2]]
    }

    #[inline(always)]
    fn transform_input<I: Isa>(isa: I, d: [I::F32; 4]) -> [I::F32; 4] {
        let ops = isa.f32();
        [
            ops.sub(d[0], d[2]),
            ops.add(d[1], d[2]),
            ops.sub(d[2], d[1]),
            ops.sub(d[1], d[3]),
        ]
    }

    #[inline(always)]
    fn transform_output<I: Isa>(isa: I, m: [I::F32; 4]) -> [I::F32; 2] {
        let ops = isa.f32();
        [
            ops.add(m[0], ops.add(m[1], m[2])),
            ops.sub(ops.sub(m[1], m[2]), m[3]),
        ]
    }
}

/// F(4, 3) at the points 0, ±1/√2, ±√2 and ∞.
pub(super) struct F4;

impl Transforms<4, 6> for F4 {
    #[inline(always)]
    fn transform_kernel<I: Isa>(isa: I, g: [I::F32; 3]) -> [I::F32; 6] {
        let ops = isa.f32();
        let [third, two_thirds, sixth] = [1.0 / 3.0, 2.0 / 3.0, 1.0 / 6.0].map(|x| ops.splat(x));
        let [root_third, root_sixth] = [ROOT / 3.0, ROOT / 6.0].map(|x| ops.splat(x));
        let even = ops.add(ops.mul(two_thirds, g[0]), ops.mul(third, g[2]));
        let odd = ops.mul(root_third, g[1]);
        let even2 = ops.add(ops.mul(sixth, g[0]), ops.mul(third, g[2]));
        let odd2 = ops.mul(root_sixth, g[1]);
        [
            g[0],
            ops.sub(ops.neg(even), odd),
            ops.sub(odd, even),
            ops.add(even2, odd2),
            ops.sub(even2, odd2),
            g[2],
        ]
    }

    #[inline(always)]
    fn transform_input<I: Isa>(isa: I, d: [I::F32; 6]) -> [I::F32; 6] {
        let ops = isa.f32();
        let [half, two, five_halves] = [0.5, 2.0, 2.5].map(|x| ops.splat(x));
        let [root, half_root] = [ROOT, HALF_ROOT].map(|x| ops.splat(x));
        let even = ops.mul_sub_from(two, d[2], d[4]);
        let odd = ops.mul_sub_from(root, d[1], ops.mul(half_root, d[3]));
        let even2 = ops.mul_sub_from(half, d[2], d[4]);
        let odd2 = ops.mul_sub_from(half_root, d[1], ops.mul(root, d[3]));
        [
            ops.mul_sub_from(five_halves, d[2], ops.add(d[0], d[4])),
            ops.add(even, odd),
            ops.sub(even, odd),
            ops.add(even2, odd2),
            ops.sub(even2, odd2),
            ops.mul_sub_from(five_halves, d[3], ops.add(d[1], d[5])),
        ]
    }

    #[inline(always)]
    fn transform_output<I: Isa>(isa: I, m: [I::F32; 6]) -> [I::F32; 4] {
        let ops = isa.f32();
        let [half, two] = [0.5, 2.0].map(|x| ops.splat(x));
        let [root, half_root] = [ROOT, HALF_ROOT].map(|x| ops.splat(x));
        let [two_roots, quarter_root] = [2.0 * ROOT, 0.5 * HALF_ROOT].map(|x| ops.splat(x));
        let (sum, difference) = (ops.add(m[1], m[2]), ops.sub(m[1], m[2]));
        let (sum2, difference2) = (ops.add(m[3], m[4]), ops.sub(m[3], m[4]));
        [
            ops.add(m[0], ops.add(sum, sum2)),
            ops.mul_add(half_root, difference, ops.mul(root, difference2)),
            ops.mul_add(half, sum, ops.mul(two, sum2)),
            ops.mul_add(
                quarter_root,
                difference,
                ops.mul_add(two_roots, difference2, m[5]),
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha8Rng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// A matrix of up to six rows and columns.
    type Matrix = [[f64; 6]; 6];

    /// `a b`, rounded to f32 after each operation.
    fn product(a: &Matrix, b: &Matrix) -> Matrix {
        let mut out = [[0.0; 6]; 6];
        for (i, row) in out.iter_mut().enumerate() {
            for (j, sum) in row.iter_mut().enumerate() {
                let products = (0..6).map(|k| a[i][k] as f32 * b[k][j] as f32);
                *sum = f64::from(products.sum::<f32>());
            }
        }
        out
    }

    fn transposed(a: &Matrix) -> Matrix {
        std::array::from_fn(|i| std::array::from_fn(|j| a[j][i]))
    }

    /// `t x tᵀ`: a one-dimensional transform of columns, then rows.
    fn transform(t: &Matrix, x: &Matrix) -> Matrix {
        product(&product(t, x), &transposed(t))
    }

    /// The coefficients of the product of `x - root` over some roots, constant first.
    fn polynomial(roots: impl Iterator<Item = f64>) -> [f64; 6] {
        let mut coefficients = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        for root in roots {
            for i in (0..6).rev() {
                let lower = if i > 0 { coefficients[i - 1] } else { 0.0 };
                coefficients[i] = lower - root * coefficients[i];
            }
        }
        coefficients
    }

    /// `Aᵀ`, `G` and `Bᵀ` of F(4, 3) with five points and infinity, by Toom and Cook.
    fn matrices(points: [f64; 5]) -> [Matrix; 3] {
        let [mut output, mut kernel, mut input] = [[[0.0; 6]; 6]; 3];
        for (p, &point) in points.iter().enumerate() {
            let others = || (0..5).filter(move |&q| q != p).map(|q| points[q]);
            let scale: f64 = others().map(|other| point - other).product();
            for i in 0..4 {
                output[i][p] = point.powi(i as i32);
            }
            for i in 0..3 {
                kernel[p][i] = point.powi(i as i32) / scale;
            }
            input[p] = polynomial(others());
        }
        (output[3][5], kernel[5][2], input[5]) = (1.0, 1.0, polynomial(points.into_iter()));
        [output, kernel, input]
    }

    /// The root mean square of the errors of F(4×4, 3×3) in f32 for sums over 64 channels.
    fn error(points: [f64; 5]) -> f64 {
        let [output, kernel, input] = matrices(points);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut random = |size: usize| {
            let mut out = [[0.0; 6]; 6];
            for row in &mut out[..size] {
                row[..size].fill_with(|| f64::from(rng.random_range(-1.0..1.0_f32)));
            }
            out
        };
        let mut squares = 0.0;
        for _ in 0..100 {
            let (mut sums, mut expected) = ([[0.0; 6]; 6], [[0.0; 4]; 4]);
            for _ in 0..64 {
                let (g, d) = (random(3), random(6));
                let (u, v) = (transform(&kernel, &g), transform(&input, &d));
                for (i, sums) in sums.iter_mut().enumerate() {
                    for (j, sum) in sums.iter_mut().enumerate() {
                        *sum = f64::from(*sum as f32 + u[i][j] as f32 * v[i][j] as f32);
                    }
                }
                for (y, expected) in expected.iter_mut().enumerate() {
                    for (x, sum) in expected.iter_mut().enumerate() {
                        let taps = (0..9).map(|t| g[t / 3][t % 3] * d[y + t / 3][x + t % 3]);
                        *sum += taps.sum::<f64>();
                    }
                }
            }
            let outputs = transform(&output, &sums);
            for i in 0..16 {
                squares += (outputs[i / 4][i % 4] - expected[i / 4][i % 4]).powi(2);
            }
        }
        (squares / 1600.0).sqrt()
    }

    #[test]
    fn errors_are_half_of_those_with_the_usual_points() {
        let root = f64::from(ROOT);
        let ours = error([0.0, 1.0 / root, -1.0 / root, root, -root]);
        let usual = error([0.0, 1.0, -1.0, 2.0, -2.0]);
        assert!((0.4..0.6).contains(&(ours / usual)), "{ours} and {usual}");
        // Nothing but rounding.
        assert!(usual < 1e-4, "{usual}");
    }
}
