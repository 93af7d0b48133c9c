//! Random streams that depend on their purpose only, so that neither the number
//! of threads nor resuming a run changes a draw.

use chacha20::ChaCha8Rng;
use rand::SeedableRng;
use rand::seq::SliceRandom;

/// The purpose of a stream. Streams of different purposes never coincide.
#[derive(Clone, Copy)]
pub(crate) enum Use {
    Drawing = 1,
    Order = 2,
    Augmentation = 3,
    Selection = 4,
    Size = 5,
    Mixing = 6,
}

/// The stream of a use, a seed and two numbers of that use's choice.
pub(crate) fn stream(for_use: Use, seed: u64, a: u64, b: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (part, value) in key.chunks_exact_mut(8).zip([for_use as u64, seed, a, b]) {
        part.copy_from_slice(&value.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// The order in which an epoch visits `len` images: a permutation of
/// `0..len` that depends only on `seed` and `epoch`.
pub fn epoch_order(len: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    order.shuffle(&mut stream(Use::Order, seed, epoch, 0));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_permutation_fixed_by_seed_and_epoch() {
        let order = epoch_order(1000, 7, 3);
        assert_eq!(order, epoch_order(1000, 7, 3));
        assert_ne!(order, epoch_order(1000, 7, 4));
        assert_ne!(order, epoch_order(1000, 8, 3));
        let mut sorted = order;
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..1000));
    }

    /// A checkpoint made by an older build must find the same order again.
    #[test]
    fn the_order_is_the_same_on_every_machine() {
        assert_eq!(epoch_order(8, 1, 2), [2, 1, 7, 3, 0, 6, 4, 5]);
    }
}
