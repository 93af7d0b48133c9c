//! Fully connected layers.

use sdpoint_kernels::*;

/// Two rows, three inputs, two outputs.
const X: [f32; 6] = [1.0, 2.0, 3.0, -1.0, 0.5, 4.0];
const W: [f32; 6] = [1.0, 0.0, -1.0, 2.0, 1.0, 0.5];

#[test]
fn forward_multiplies_and_adds_the_bias() {
    let ctx = Context::new(None).unwrap();
    let w = PackedLinear::new(&ctx, 3, 2, &W, false);
    let mut y = [0.0; 4];
    linear_forward(&ctx, 2, &X, &w, Some(&[10.0, 20.0]), &mut y);
    assert_eq!(y, [8.0, 25.5, 5.0, 20.5]);
}

#[test]
fn rows_do_not_reach_one_another() {
    let ctx = Context::new(None).unwrap();
    let (batch, inputs, outputs) = (50, 256, 1024);
    let w: Vec<f32> = (0..inputs * outputs)
        .map(|i| (i % 19) as f32 - 9.0)
        .collect();
    let w = PackedLinear::new(&ctx, inputs, outputs, &w, false);
    let mut x: Vec<f32> = (0..batch * inputs).map(|i| (i % 23) as f32 * 0.1).collect();
    let mut y = vec![0.0; batch * outputs];
    linear_forward(&ctx, batch, &x, &w, None, &mut y);
    x[..inputs].fill(f32::NAN);
    let mut with_nan = vec![0.0; batch * outputs];
    linear_forward(&ctx, batch, &x, &w, None, &mut with_nan);
    assert!(with_nan[..outputs].iter().all(|y| y.is_nan()));
    assert!(with_nan[outputs..] == y[outputs..]);
}

#[test]
fn backward_is_the_transpose() {
    let ctx = Context::new(None).unwrap();
    let w = PackedLinear::new(&ctx, 3, 2, &W, true);
    let dy = [1.0, 2.0, -1.0, 4.0];
    let mut dx = [100.0; 6];
    linear_backward_data(&ctx, 2, &dy, &w, &mut dx, false);
    assert_eq!(dx, [5.0, 2.0, 0.0, 7.0, 4.0, 3.0]);
    let (mut dw, mut db) = ([1.0; 6], [1.0; 2]);
    let shape = linear_shape(2, 3, 2);
    linear_backward_weights(&ctx, &shape, &X, &dy, &mut dw, Some(&mut db), true);
    assert_eq!(dw, [3.0, 2.5, 0.0, -1.0, 7.0, 23.0]);
    assert_eq!(db, [1.0, 7.0]);
}
