//! Folding of batch norms into the convolutions before them.

use sdpoint_core::Moments;

/// A batch norm in an instance.
pub(super) struct BatchNorm<'a> {
    pub scale: &'a [f32],
    pub shift: &'a [f32],
    pub moments: &'a Moments,
    pub eps: f32,
}

/// The weight and bias of a convolution that is equivalent to a convolution
/// followed by a batch norm: with `f = scale / √(var + eps)`, weights times `f`,
/// and `shift + f · (bias − mean)`, per output channel. An empty bias is zero.
/// Computed in double precision.
pub(super) fn folded(weight: &[f32], bias: &[f32], norm: &BatchNorm<'_>) -> (Vec<f32>, Vec<f32>) {
    let channels = norm.scale.len();
    let an_output = weight.len() / channels;
    let mut weights = Vec::with_capacity(weight.len());
    let mut biases = Vec::with_capacity(channels);
    for channel in 0..channels {
        let var = f64::from(norm.moments.var[channel]) + f64::from(norm.eps);
        let factor = f64::from(norm.scale[channel]) / var.sqrt();
        let taps = &weight[channel * an_output..][..an_output];
        weights.extend(taps.iter().map(|&tap| (f64::from(tap) * factor) as f32));
        let bias = bias.get(channel).map_or(0.0, |&bias| f64::from(bias));
        let centred = bias - f64::from(norm.moments.mean[channel]);
        biases.push((f64::from(norm.shift[channel]) + factor * centred) as f32);
    }
    (weights, biases)
}
