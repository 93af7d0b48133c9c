//! Recognises the network of a checkpoint.

use sdpoint_core::zoo;

use super::ImportOptions;
use super::layout::Layout;
use super::names::Names;
use super::pick;
use crate::checkpoint::{Checkpoint, TensorSet};

/// The listed network, or the member of a listed family, whose tensors are
/// exactly those of a checkpoint.
pub fn recognise(checkpoint: &Checkpoint, choice: &ImportOptions) -> Option<String> {
    let listed = zoo::entries()
        .into_iter()
        .map(|entry| entry.name.to_owned());
    let members = checkpoint.sets().iter().take(8).flat_map(members);
    listed.chain(members).find(|name| {
        let Ok(network) = zoo::build(name, 2) else {
            return false;
        };
        let best = pick::best(checkpoint, &Layout::of(&network), choice);
        best.is_ok_and(|(fit, _)| fit.fits() && fit.left_over.is_empty())
    })
}

/// Names of members of families with the numbers of blocks and channels of a
/// dictionary.
fn members(set: &TensorSet) -> Vec<String> {
    let names = Names::of(set);
    let shape = |name: &str| Some(names.get(name)?.entry.as_ref().ok()?.shape().to_vec());
    let mut found = Vec::new();
    for named in &names.all {
        if let Some(prefix) = named.plain.strip_suffix("blocks.0.conv1.weight") {
            let count = (0..)
                .take_while(|block| {
                    names
                        .get(&format!("{prefix}blocks.{block}.conv1.weight"))
                        .is_some()
                })
                .count();
            let width = shape(&format!("{prefix}conv1.weight"));
            let first = shape(&named.plain);
            if let (Some([width, ..]), Some([first, ..])) = (width.as_deref(), first.as_deref()) {
                // Three stages of blocks of two layers each.
                let depth = 2 * count;
                found.push(format!("preresnet{}", depth + 2));
                found.push(format!("preresnet{}-w{width}", depth + 2));
                found.push(format!("wrn{}-{}", depth + 4, first / (*width).max(1)));
            }
        }
        if named.plain.ends_with("layer1.0.conv2.weight")
            && let Some([channels, each, ..]) = shape(&named.plain).as_deref()
        {
            found.push(format!("resnext29_{}x{each}d", channels / (*each).max(1)));
        }
    }
    found.truncate(16);
    found
}
