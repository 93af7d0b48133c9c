//! Features of unsupported networks that the names of tensors indicate.

use sdpoint_core::words::plural;

use super::error::{Misshapen, shown};
use crate::checkpoint::TensorSet;

/// A part of a name, and the feature that it indicates.
struct Sign {
    is: fn(&str) -> bool,
    what: &'static str,
}

#[rustfmt::skip]
const SIGNS: [Sign; 19] = [
    Sign { is: |n| has(n, "weight_fake_quant") || has(n, "zero_point") || has(n, "_packed_params"), what: "weights quantised for integers" },
    Sign { is: |n| n.ends_with("weight_orig") || n.ends_with("weight_mask"), what: "weights pruned by masks; torch.nn.utils.prune.remove makes them plain" },
    Sign { is: |n| n.ends_with("weight_g") || n.ends_with("weight_v") || has(n, "parametrizations"), what: "weights that are computed of others (weight or spectral norm); torch.nn.utils.parametrize.remove_parametrizations makes them plain" },
    Sign { is: |n| has(n, "lora_A") || has(n, "lora_B"), what: "an adapter (LoRA) beside the weights; merge it first" },
    Sign { is: |n| n.contains("embedder.embedder.convolution"), what: "a ResNet of Hugging Face transformers, whose tensors have other names; timm and torchvision have the same networks" },
    Sign { is: |n| has(n, "attn") || has(n, "attention") || has(n, "patch_embed"), what: "attention: a transformer, or a network with attention in its blocks" },
    Sign { is: |n| has(n, "se") || has(n, "se_module"), what: "squeeze-and-excitation" },
    Sign { is: |n| has(n, "eca"), what: "efficient channel attention" },
    Sign { is: |n| has(n, "aa") || n.ends_with(".filt"), what: "blur pooling (antialiasing)" },
    Sign { is: |n| under(n, "conv1.0.weight"), what: "a stem of several convolutions (the variants C, D, S and T of ResNet)" },
    Sign { is: |n| under(n, "maxpool.0.weight"), what: "a convolution in place of the max pool" },
    Sign { is: |n| n.ends_with("downsample.2.weight"), what: "shortcuts with average pooling (the variants D, E and T of ResNet)" },
    Sign { is: |n| has(n, "denseblock1") || has(n, "denselayer1"), what: "a DenseNet" },
    Sign { is: |n| under(n, "features.0.0.weight") || n.contains("conv_dw.weight") || n.contains("conv_pw.weight"), what: "depthwise convolutions, as in MobileNet and EfficientNet" },
    Sign { is: |n| under(n, "features.0.weight"), what: "layers in one sequence, as in VGG and AlexNet" },
    Sign { is: |n| has(n, "norm1") || has(n, "gn1"), what: "norms of other names: group or layer norms, or another library's" },
    Sign { is: |n| n.ends_with("conv1.bias"), what: "convolutions with biases, such as batch norms leave that were folded" },
    Sign { is: |n| n.ends_with("instance_mean"), what: "statistics of several instances, as `sdpoint export` writes them for its PyTorch module; export one instance" },
    Sign { is: |n| n.ends_with("layer1.0.conv3.weight"), what: "a ResNet of bottlenecks; of those that are listed, none has its widths, depth and layers" },
];

/// Whether one of a name's components is `part`.
fn has(name: &str, part: &str) -> bool {
    name.split('.').any(|own| own == part)
}

/// Whether it is this name, in the network or behind a prefix.
fn under(name: &str, own: &str) -> bool {
    name.strip_suffix(own)
        .is_some_and(|prefix| prefix.is_empty() || prefix.ends_with('.'))
}

/// What it indicates if only statistics are missing.
pub(super) fn of_missing(missing: &[String]) -> Option<String> {
    let is_statistic = |name: &String| name.contains("running_");
    let only = !missing.is_empty() && missing.iter().all(is_statistic);
    only.then(|| {
        "norms without running statistics are group norms, or batch norms of which the parameters \
         alone were saved: save model.state_dict()"
            .into()
    })
}

/// What it indicates if the first convolution is for other images.
pub(super) fn of_misshapen(misshapen: &[Misshapen]) -> Option<String> {
    const RGB: usize = 3;
    misshapen.iter().find_map(|tensor| {
        let (&[_, channels, height, width], &[_, RGB, ..]) =
            (&tensor.found[..], &tensor.expected[..])
        else {
            return None;
        };
        let same_window = tensor.expected.get(2..) == Some(&[height, width]);
        let grey = if channels == 1 { " (grey)" } else { "" };
        (channels != RGB && same_window).then(|| {
            format!(
                "its images have {}{grey}; sdpoint supports images of 3, RGB",
                plural(channels, "channel", "channels")
            )
        })
    })
}

/// The unsupported feature that the names of a dictionary indicate.
pub(super) fn of(set: &TensorSet) -> Option<String> {
    SIGNS.iter().find_map(|sign| {
        let name = set.names().find(|name| (sign.is)(name))?;
        Some(format!(
            "names like '{}' suggest {}",
            shown(name),
            sign.what
        ))
    })
}
