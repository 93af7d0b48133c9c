//! Adaptive pooling for a fixed size, with operators that every runtime
//! supports.
//!
//! ONNX has no adaptive pooling. Output i of m covers inputs ⌊i·n/m⌋ up to, but
//! not including, ⌈(i+1)·n/m⌉. If m divides n, that is ordinary pooling.
//! Otherwise the windows differ in length, by at most one.

use super::graph::Graph;
use super::proto::Attribute::{Int, Ints};

/// The inputs that each output covers: the first, and one past the last.
fn windows(inputs: usize, outputs: usize) -> Vec<(usize, usize)> {
    (0..outputs)
        .map(|i| (i * inputs / outputs, ((i + 1) * inputs).div_ceil(outputs)))
        .collect()
}

/// Average pooling of `input` from height and width `from` to `to`.
///
/// Unequal windows become two products with constant matrices, one per side: the
/// work is small, and runtimes are fast at products.
///
/// The product over columns comes last, so that the right operand of the last
/// product is a constant. A batch norm often follows, and OpenVINO moves its
/// scale through a product to the right operand, which is correct for a
/// constant. In the other order, the right operand is the result of the first
/// product, and OpenVINO's CPU plugin (seen in 2026.4) fuses the scale along the
/// last axis instead of the channels: it fails to compile the model, or, if the
/// width happens to equal the number of channels, silently computes wrong
/// results.
pub(super) fn average(
    graph: &mut Graph,
    input: &str,
    output: &str,
    from: [usize; 2],
    to: [usize; 2],
) -> String {
    if let Some(pooled) = ordinary(graph, "AveragePool", input, output, from, to) {
        return pooled;
    }
    let [height, width] = from;
    let mut left = vec![0.0; to[0] * height];
    for (row, (first, end)) in windows(height, to[0]).into_iter().enumerate() {
        left[row * height..][first..end].fill(1.0 / (end - first) as f32);
    }
    let mut right = vec![0.0; width * to[1]];
    for (column, (first, end)) in windows(width, to[1]).into_iter().enumerate() {
        for place in first..end {
            right[place * to[1] + column] = 1.0 / (end - first) as f32;
        }
    }
    let left = graph.floats(format!("{output}/rows"), &[to[0], height], &left);
    let right = graph.floats(format!("{output}/columns"), &[width, to[1]], &right);
    let low = graph.node("MatMul", &[&left, input], &format!("{output}/low"), &[]);
    graph.node("MatMul", &[&low, &right], output, &[])
}

/// Max pooling of `input` from height and width `from` to `to`.
///
/// Each of the unequal windows is the union of two of equal length: one from the
/// window's start, one up to its end. The maxima at all positions are computed
/// once, and the required rows and columns are gathered.
pub(super) fn maximum(
    graph: &mut Graph,
    input: &str,
    output: &str,
    from: [usize; 2],
    to: [usize; 2],
) -> String {
    if let Some(pooled) = ordinary(graph, "MaxPool", input, output, from, to) {
        return pooled;
    }
    let windows = [windows(from[0], to[0]), windows(from[1], to[1])];
    let kernel = [0, 1].map(|side| {
        let lengths = windows[side].iter().map(|(first, end)| end - first);
        lengths.min().unwrap_or(1) as i64
    });
    let attributes = [Ints("kernel_shape", &kernel), Ints("strides", &[1, 1])];
    let dense = graph.node("MaxPool", &[input], &format!("{output}/dense"), &attributes);
    let rows = format!("{output}/rows");
    let rows = larger(graph, &dense, &rows, 2, &windows[0], kernel[0] as usize);
    larger(graph, &rows, output, 3, &windows[1], kernel[1] as usize)
}

/// Along one axis, the larger of the maxima at both ends of each window.
fn larger(
    graph: &mut Graph,
    input: &str,
    output: &str,
    axis: i64,
    windows: &[(usize, usize)],
    kernel: usize,
) -> String {
    let firsts: Vec<usize> = windows.iter().map(|&(first, _)| first).collect();
    let lasts: Vec<usize> = windows.iter().map(|&(_, end)| end - kernel).collect();
    let mut gather = |places: &[usize], name: &str| {
        let indices = graph.integers(format!("{name}/indices"), places);
        graph.node("Gather", &[input, &indices], name, &[Int("axis", axis)])
    };
    if firsts == lasts {
        return gather(&firsts, output);
    }
    let first = gather(&firsts, &format!("{output}/first"));
    let last = gather(&lasts, &format!("{output}/last"));
    graph.node("Max", &[&first, &last], output, &[])
}

/// Ordinary pooling with `operator`, if it is equivalent.
fn ordinary(
    graph: &mut Graph,
    operator: &str,
    input: &str,
    output: &str,
    from: [usize; 2],
    to: [usize; 2],
) -> Option<String> {
    if !(0..2).all(|side| from[side].is_multiple_of(to[side])) {
        return None;
    }
    let kernel = [0, 1].map(|side| (from[side] / to[side]) as i64);
    let attributes = [Ints("kernel_shape", &kernel), Ints("strides", &kernel)];
    Some(graph.node(operator, &[input], output, &attributes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::node;

    /// A requirement of OpenVINO, which these tests cannot run; see [`average`].
    #[test]
    fn the_last_product_has_a_constant_on_its_right() {
        let mut graph = Graph::default();
        average(&mut graph, "x", "y", [33, 45], [16, 22]);
        let bytes = graph.finish("net", ("x", &[]), ("y", &[])).into_bytes();
        let last = node("MatMul", &["y/low", "y/columns"], "y", &[]).into_bytes();
        assert!(bytes.windows(last.len()).any(|part| part == last));
    }

    #[test]
    fn windows_are_pytorchs_and_two_of_the_shortest_cover_each() {
        assert_eq!(windows(5, 3), [(0, 2), (1, 4), (3, 5)]);
        for inputs in 1..80 {
            for outputs in 1..=inputs {
                let windows = windows(inputs, outputs);
                assert_eq!((windows[0].0, windows[outputs - 1].1), (0, inputs));
                let lengths = || windows.iter().map(|(first, end)| end - first);
                let (shortest, longest) = (lengths().min().unwrap(), lengths().max().unwrap());
                assert!(longest <= 2 * shortest, "{inputs} to {outputs}");
            }
        }
    }
}
