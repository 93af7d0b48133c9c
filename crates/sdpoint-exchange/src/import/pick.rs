//! Selects the dictionary that becomes the network.

use std::cmp::Reverse;

use super::error::ImportError;
use super::fit::Fit;
use super::layout::Layout;
use super::{ImportOptions, OtherSet};
use crate::checkpoint::{Checkpoint, TensorSet};

/// Keys under which training scripts save the weights, the most common first.
const USUAL: [&str; 8] = [
    "state_dict",
    "model_state_dict",
    "model",
    "module",
    "net",
    "network",
    "weights",
    "params",
];

/// The number of dictionaries, the largest ones, that are matched in detail.
const MOST: usize = 256;

/// The dictionary that fits best, and the alternatives.
///
/// Of those that fit, averaged weights are preferred unless they are excluded,
/// as in timm's `load_state_dict`; then the usual keys, and then those at the
/// outermost level.
pub(super) fn best<'c>(
    checkpoint: &'c Checkpoint,
    layout: &Layout,
    choice: &ImportOptions,
) -> Result<(Fit<'c>, Vec<OtherSet>), ImportError> {
    let mut sets = chosen(checkpoint, choice)?;
    sets.sort_by_key(|set| Reverse(set.len()));
    sets.truncate(MOST);
    let mut fits: Vec<Fit<'c>> = sets
        .into_iter()
        .map(|set| Fit::new(set, layout, choice))
        .collect();
    fits.sort_by_key(|fit| order(fit, choice));
    let mut fits = fits.into_iter();
    // Every checkpoint has at least one dictionary.
    let best = fits
        .next()
        .ok_or(ImportError::AveragedOnly { keys: vec![] })?;
    let others = fits
        .filter(|fit| !fit.set.is_joined() && 2 * fit.score.names >= layout.len())
        .filter(|fit| !best.uses_part(fit.set.key()))
        .map(|fit| OtherSet {
            key: fit.set.key().to_owned(),
            tensors: fit.set.len(),
            averaged: fit.averaged,
            fits: fit.fits() && (choice.allow_left_over || fit.left_over.is_empty()),
        });
    let mut others: Vec<OtherSet> = others.collect();
    others.sort_by(|one, other| one.key.cmp(&other.key));
    Ok((best, others))
}

/// The dictionaries that the choice allows.
fn chosen<'c>(
    checkpoint: &'c Checkpoint,
    choice: &ImportOptions,
) -> Result<Vec<&'c TensorSet>, ImportError> {
    let sets = checkpoint.sets();
    let key = |set: &TensorSet| match set.key() {
        "" => "'.' (the file's top)".to_owned(),
        key => key.to_owned(),
    };
    if let Some(wanted) = &choice.key {
        let found: Vec<_> = sets.iter().filter(|set| set.key() == wanted).collect();
        if found.is_empty() {
            let mut largest: Vec<_> = sets.iter().filter(|set| !set.is_joined()).collect();
            largest.sort_by_key(|set| Reverse(set.len()));
            return Err(ImportError::NoKey {
                key: wanted.clone(),
                keys: largest.into_iter().map(key).collect(),
            });
        }
        return Ok(found);
    }
    if !choice.plain {
        return Ok(sets.iter().collect());
    }
    let found: Vec<_> = sets.iter().filter(|set| !set.is_averaged()).collect();
    if found.is_empty() {
        return Err(ImportError::AveragedOnly {
            keys: sets.iter().map(key).collect(),
        });
    }
    Ok(found)
}

/// The order of preference; the least key is selected.
fn order(fit: &Fit<'_>, choice: &ImportOptions) -> impl Ord + use<> {
    let key = fit.set.key();
    let last = key.rsplit('.').next().unwrap_or(key);
    let usual = USUAL.iter().position(|&usual| usual == last);
    let depth = key.split('.').filter(|part| !part.is_empty()).count();
    let fits = fit.fits();
    (
        Reverse(fits),
        Reverse(if fits { Default::default() } else { fit.score }),
        !fit.left_over.is_empty(),
        fit.averaged == choice.plain,
        fit.set.is_joined(),
        usual.unwrap_or(USUAL.len()),
        depth,
        key.to_owned(),
    )
}
