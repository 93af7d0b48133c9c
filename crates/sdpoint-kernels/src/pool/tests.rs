#[path = "../../tests/kernels/windows.rs"]
mod windows;

use super::*;
use proptest::prelude::*;
use windows::{adaptive, sliding};

fn check_axis(axis: &PoolAxis, expected: &[Vec<usize>]) {
    assert_eq!(axis.output(), expected.len());
    for (window, expected) in axis.windows.iter().zip(expected) {
        assert_eq!(&window.clone().collect::<Vec<_>>(), expected);
        assert!(!window.is_empty());
    }
    assert_eq!(axis.covering.len(), axis.input());
    for (i, covering) in axis.covering.iter().enumerate() {
        for (o, window) in expected.iter().enumerate() {
            assert_eq!(covering.contains(&o), window.contains(&i));
        }
    }
}

proptest! {
    #[test]
    fn sliding_windows_follow_the_definition(
        input in 1..40usize,
        kernel in 1..8usize,
        stride in 1..8usize,
        padding in 0..4usize,
    ) {
        prop_assume!(padding <= kernel / 2 && kernel <= input + 2 * padding);
        let axis = PoolAxis::sliding(input, kernel, stride, padding);
        check_axis(&axis, &sliding(input, kernel, stride, padding));
        prop_assert!(axis.weights.iter().all(|&weight| weight == 1.0 / kernel as f32));
    }

    #[test]
    fn adaptive_windows_follow_the_definition(input in 1..80usize, output in 1..80usize) {
        let axis = PoolAxis::adaptive(input, output);
        check_axis(&axis, &adaptive(input, output));
        prop_assert!(axis.covering.iter().all(|covering| !covering.is_empty()));
        let weights: Vec<f32> = axis.windows.iter().map(|window| 1.0 / window.len() as f32).collect();
        prop_assert_eq!(axis.weights, weights);
    }
}
