//! Pooling compared with its definition.

use sdpoint_kernels::pool::*;

use crate::testing::{check, contexts, differentiate, dot, random, widen};
use crate::windows::{adaptive, sliding};

/// The most inputs for finite differences, which are slow.
const DIFFERENTIABLE: usize = 900;

/// A geometry with its expected windows.
struct Case {
    geometry: PoolGeometry,
    rows: Vec<Vec<usize>>,
    columns: Vec<Vec<usize>>,
    /// The divisor of averages for all windows; `None` for the window's length.
    size: Option<usize>,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (channels, batch) in [(1, 2), (3, 1), (5, 2), (16, 2), (17, 1), (40, 1), (70, 1)] {
        for (height, width, kernel, stride, padding) in [
            (7, 9, 3, 2, 1),
            (6, 5, 2, 2, 0),
            (1, 1, 1, 1, 0),
            (5, 8, 2, 3, 1),
            (4, 3, 3, 1, 1),
        ] {
            cases.push(Case {
                geometry: PoolGeometry {
                    batch,
                    channels,
                    height: PoolAxis::sliding(height, kernel, stride, padding),
                    width: PoolAxis::sliding(width, kernel, stride, padding),
                },
                rows: sliding(height, kernel, stride, padding),
                columns: sliding(width, kernel, stride, padding),
                size: Some(kernel * kernel),
            });
        }
        for (height, width, rows, columns) in
            [(7, 10, 4, 8), (5, 7, 1, 1), (1, 1, 1, 1), (3, 4, 5, 4)]
        {
            cases.push(Case {
                geometry: PoolGeometry {
                    batch,
                    channels,
                    height: PoolAxis::adaptive(height, rows),
                    width: PoolAxis::adaptive(width, columns),
                },
                rows: adaptive(height, rows),
                columns: adaptive(width, columns),
                size: None,
            });
        }
    }
    cases
}

/// Pools with `f`, which takes a window's pixels (number and value) in order.
fn reference(case: &Case, x: &[f64], f: impl Fn(&[(usize, f64)]) -> f64) -> Vec<f64> {
    let PoolGeometry {
        batch,
        channels,
        height,
        width,
    } = &case.geometry;
    let mut y = Vec::new();
    for image in 0..*batch {
        for rows in &case.rows {
            for columns in &case.columns {
                for channel in 0..*channels {
                    let window: Vec<_> = rows
                        .iter()
                        .flat_map(|row| columns.iter().map(move |col| row * width.input() + col))
                        .map(|pixel| {
                            let pixels = height.input() * width.input();
                            (pixel, x[(image * pixels + pixel) * channels + channel])
                        })
                        .collect();
                    y.push(f(&window));
                }
            }
        }
    }
    y
}

fn average(case: &Case, x: &[f64]) -> Vec<f64> {
    reference(case, x, |window| {
        let sum: f64 = window.iter().map(|(_, x)| x).sum();
        sum / case.size.unwrap_or(window.len()) as f64
    })
}

fn max(case: &Case, x: &[f64]) -> Vec<f64> {
    reference(case, x, |window| {
        window
            .iter()
            .fold(f64::NEG_INFINITY, |max, (_, x)| max.max(*x))
    })
}

/// The gradient, alone and added to what was there.
fn gradients(case: &Case, dx: Vec<f64>) -> [Vec<f64>; 2] {
    let old = random(case.geometry.input_len(), 99);
    let sum = dx
        .iter()
        .zip(old)
        .map(|(dx, old)| dx + f64::from(old))
        .collect();
    [dx, sum]
}

#[test]
fn average_matches_both_ways() {
    for case in cases() {
        let geometry = &case.geometry;
        let (input, output) = (geometry.input_len(), geometry.output_len());
        let (x, dy) = (random(input, 1), random(output, 2));
        check([average(&case, &widen(&x))], 1e-6, |ctx| {
            let mut y = vec![9.0; output];
            average_pool(ctx, geometry, &x, &mut y);
            [y]
        });
        if input > DIFFERENTIABLE {
            continue;
        }
        let dx = differentiate(&widen(&x), |x| dot(&average(&case, x), &dy));
        check(gradients(&case, dx), 1e-6, |ctx| {
            [false, true].map(|accumulate| {
                let mut dx = random(input, 99);
                average_pool_backward(ctx, geometry, &dy, accumulate, &mut dx);
                dx
            })
        });
    }
}

#[test]
fn max_matches_both_ways() {
    for case in cases() {
        let geometry = &case.geometry;
        let (input, output) = (geometry.input_len(), geometry.output_len());
        let (x, dy) = (random(input, 1), random(output, 2));
        let y = max(&case, &widen(&x));
        check([y.clone(), y], 0.0, |ctx| {
            let [mut alone, mut with_indices] = [vec![9.0; output], vec![9.0; output]];
            max_pool(ctx, geometry, &x, &mut alone);
            max_pool_with_indices(ctx, geometry, &x, &mut with_indices, &mut vec![0; output]);
            [alone, with_indices]
        });
        if input > DIFFERENTIABLE {
            continue;
        }
        let dx = differentiate(&widen(&x), |x| dot(&max(&case, x), &dy));
        check(gradients(&case, dx), 1e-6, |ctx| {
            let mut indices = vec![0; output];
            max_pool_with_indices(ctx, geometry, &x, &mut vec![0.0; output], &mut indices);
            [false, true].map(|accumulate| {
                let mut dx = random(input, 99);
                max_pool_backward(ctx, geometry, &dy, &indices, accumulate, &mut dx);
                dx
            })
        });
    }
}

#[test]
fn the_first_of_equal_values_and_nan_win() {
    for case in cases() {
        let geometry = &case.geometry;
        let (input, output) = (geometry.input_len(), geometry.output_len());
        // Few distinct values, so that most windows have ties; and constant images.
        let coarse: Vec<f32> = random(input, 1).iter().map(|x| x.round()).collect();
        for x in [coarse, vec![f32::NEG_INFINITY; input]] {
            let first = reference(&case, &widen(&x), |window| {
                let largest = window
                    .iter()
                    .fold(f64::NEG_INFINITY, |max, (_, x)| max.max(*x));
                window.iter().find(|(_, x)| *x == largest).unwrap().0 as f64
            });
            check([first], 0.0, |ctx| {
                let mut indices = vec![0; output];
                max_pool_with_indices(ctx, geometry, &x, &mut vec![0.0; output], &mut indices);
                [indices.iter().map(|&i| i as f32).collect()]
            });
        }
        let mut x = random(input, 1);
        x.iter_mut().step_by(3).for_each(|x| *x = f32::NAN);
        let has_nan = reference(&case, &widen(&x), |window| {
            f64::from(u8::from(window.iter().any(|(_, x)| x.is_nan())))
        });
        check([has_nan], 0.0, |ctx| {
            let mut y = vec![0.0; output];
            max_pool(ctx, geometry, &x, &mut y);
            [y.iter().map(|y| f32::from(u8::from(y.is_nan()))).collect()]
        });
    }
}

/// The small shapes are one task.
#[test]
fn a_large_image_is_cut_into_tasks() {
    let case = Case {
        geometry: PoolGeometry {
            batch: 3,
            channels: 16,
            height: PoolAxis::adaptive(61, 33),
            width: PoolAxis::adaptive(67, 40),
        },
        rows: adaptive(61, 33),
        columns: adaptive(67, 40),
        size: None,
    };
    let geometry = &case.geometry;
    let x = random(geometry.input_len(), 1);
    let expected = [average(&case, &widen(&x)), max(&case, &widen(&x))];
    check(expected, 1e-6, |ctx| {
        let [mut average, mut max] = [
            vec![9.0; geometry.output_len()],
            vec![9.0; geometry.output_len()],
        ];
        average_pool(ctx, geometry, &x, &mut average);
        max_pool(ctx, geometry, &x, &mut max);
        [average, max]
    });
    // Each output's gradient is distributed exactly once.
    let dy = random(geometry.output_len(), 2);
    let total: f64 = widen(&dy).iter().sum();
    check([vec![total], vec![total]], 1e-4, |ctx| {
        let mut dx = vec![0.0; x.len()];
        average_pool_backward(ctx, geometry, &dy, false, &mut dx);
        let average = widen(&dx).iter().sum::<f64>() as f32;
        let mut indices = vec![0; dy.len()];
        max_pool_with_indices(ctx, geometry, &x, &mut vec![0.0; dy.len()], &mut indices);
        max_pool_backward(ctx, geometry, &dy, &indices, false, &mut dx);
        [vec![average], vec![widen(&dx).iter().sum::<f64>() as f32]]
    });
}

#[test]
#[should_panic(expected = "length of the pooling's output")]
fn a_wrong_length_is_refused() {
    let geometry = PoolGeometry {
        batch: 1,
        channels: 2,
        height: PoolAxis::adaptive(4, 2),
        width: PoolAxis::adaptive(4, 2),
    };
    let ctx = contexts(1).next().unwrap();
    average_pool(&ctx, &geometry, &[0.0; 32], &mut [0.0; 9]);
}
