//! The windows of pooling by the definition.

/// Input pixels under each output along one axis, by the definition.
pub fn sliding(input: usize, kernel: usize, stride: usize, padding: usize) -> Vec<Vec<usize>> {
    (0..)
        .map(|o| o * stride)
        .take_while(|start| start + kernel <= input + 2 * padding)
        .map(|start| {
            (start..start + kernel)
                .filter(|&padded| padded >= padding && padded < padding + input)
                .map(|padded| padded - padding)
                .collect()
        })
        .collect()
}

/// The inputs of each output where the outputs divide the input evenly.
pub fn adaptive(input: usize, output: usize) -> Vec<Vec<usize>> {
    let boundary = |i: usize| i as f64 * input as f64 / output as f64;
    (0..output)
        .map(|i| (boundary(i).floor() as usize..boundary(i + 1).ceil() as usize).collect())
        .collect()
}
