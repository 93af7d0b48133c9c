//! Memory planning: all tensors of a run are placed in one block of memory, in
//! which tensors with disjoint lifetimes overlap.

use std::ops::Range;

use sdpoint_kernels::AlignedVec;

/// The size of a tensor, and its lifetime: from the step that writes it to the
/// last step that reads it, both included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetime {
    /// The size in floats.
    pub len: usize,
    /// The first step that writes it.
    pub first: usize,
    /// The last step that reads it.
    pub last: usize,
}

/// The range of each tensor in an [`Arena`], in floats.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    places: Vec<Range<usize>>,
    len: usize,
}

/// Floats in a cache line; tensors start at its multiples.
const ALIGNMENT: usize = 64 / size_of::<f32>();

impl Layout {
    /// Places tensors so that those with overlapping lifetimes do not overlap
    /// in memory.
    ///
    /// Greedy by size (Pisarchyk and Lee, "Efficient Memory Management for Deep
    /// Neural Net Inference", 2020): tensors are placed in order of descending
    /// size, each at the lowest offset with a large enough gap.
    pub fn new(lifetimes: &[Lifetime]) -> Self {
        Self::with_fixed(lifetimes, &[])
    }

    /// As [`Layout::new`], with the tensors in `fixed` at the given ranges.
    pub fn with_fixed(lifetimes: &[Lifetime], fixed: &[(usize, Range<usize>)]) -> Self {
        let mut places = vec![0..0; lifetimes.len()];
        // The tensors placed so far, in order of their start.
        let mut placed: Vec<usize> = Vec::with_capacity(lifetimes.len());
        let mut total = 0;
        for (i, place) in fixed {
            places[*i] = place.clone();
            placed.push(*i);
            total = total.max(place.end);
        }
        placed.sort_by_key(|&i| places[i].start);
        let mut order: Vec<usize> = (0..lifetimes.len())
            .filter(|i| !placed.contains(i))
            .collect();
        order.sort_by_key(|&i| std::cmp::Reverse(lifetimes[i].len));
        for i in order {
            let Lifetime { len, first, last } = lifetimes[i];
            let mut start = 0;
            for &other in &placed {
                let theirs = &lifetimes[other];
                if theirs.last < first || last < theirs.first {
                    continue;
                }
                if start + len <= places[other].start {
                    break;
                }
                start = start.max(places[other].end.next_multiple_of(ALIGNMENT));
            }
            places[i] = start..start + len;
            total = total.max(start + len);
            let at = placed.partition_point(|&p| places[p].start <= start);
            placed.insert(at, i);
        }
        Self { places, len: total }
    }

    /// The range of tensor `index`.
    pub fn place(&self, index: usize) -> Range<usize> {
        self.places[index].clone()
    }

    /// Gives tensor `index` the range of tensor `other`.
    pub fn share(&mut self, index: usize, other: usize) {
        self.places[index] = self.places[other].clone();
    }

    /// The size in floats of an [`Arena`] for this layout.
    pub fn len(&self) -> usize {
        self.len
    }
}

/// The block of memory that holds the tensors of a run.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    memory: AlignedVec,
}

impl Arena {
    /// Ensures room for a layout of `len` floats, discarding the content if it
    /// has to grow.
    pub fn reserve(&mut self, len: usize) {
        if self.memory.len() < len {
            // Frees the old block first, so that both never exist at once.
            self.memory = AlignedVec::default();
            self.memory = AlignedVec::zeros(len);
        }
    }

    /// Ensures room for a layout of `len` floats, keeping the content.
    pub fn extend(&mut self, len: usize) {
        if self.memory.len() < len {
            let mut larger = AlignedVec::zeros(len);
            larger[..self.memory.len()].copy_from_slice(&self.memory);
            self.memory = larger;
        }
    }

    /// The size of the block in bytes.
    pub fn bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// Borrows all of the memory for reading.
    pub fn read(&self) -> Reader<'_> {
        Reader::new([(0, &self.memory), (0, &[]), (0, &[])])
    }

    /// Borrows one range for writing and the rest for reading.
    pub fn write(&mut self, place: Range<usize>) -> (Reader<'_>, &mut [f32]) {
        let (reader, out, _) = self.write_two(place.clone(), place.end..place.end);
        (reader, out)
    }

    /// Borrows two ranges for writing and the rest for reading.
    ///
    /// # Panics
    /// If the ranges overlap.
    pub fn write_two(
        &mut self,
        a: Range<usize>,
        b: Range<usize>,
    ) -> (Reader<'_>, &mut [f32], &mut [f32]) {
        let swap = b.start < a.start;
        let (low, high) = if swap { (b, a) } else { (a, b) };
        let (below, rest) = self.memory.split_at_mut(low.start);
        let (first, rest) = rest.split_at_mut(low.len());
        let (between, rest) = rest.split_at_mut(high.start - low.end);
        let (second, above) = rest.split_at_mut(high.len());
        let reader = Reader::new([(0, below), (low.end, between), (high.end, above)]);
        if swap {
            (reader, second, first)
        } else {
            (reader, first, second)
        }
    }
}

/// Read access to the parts of an arena that are not borrowed for writing.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    pieces: [(usize, &'a [f32]); 3],
}

impl<'a> Reader<'a> {
    fn new(pieces: [(usize, &'a [f32]); 3]) -> Self {
        Self { pieces }
    }

    /// The tensor at a range.
    ///
    /// # Panics
    /// If the range is borrowed for writing, which no plan does.
    pub fn get(&self, place: Range<usize>) -> &'a [f32] {
        self.pieces
            .iter()
            .find_map(|&(start, piece)| {
                piece.get(place.start.checked_sub(start)?..place.end.checked_sub(start)?)
            })
            .expect("a plan reads no tensor that the same step writes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_with_overlapping_lifetimes_do_not_overlap() {
        let lifetimes: Vec<Lifetime> = (0..200usize)
            .map(|i| {
                let first = (i * 7919) % 50;
                Lifetime {
                    len: 1 + (i * 104_729) % 300,
                    first,
                    last: first + (i * 31) % 9,
                }
            })
            .collect();
        let layout = Layout::new(&lifetimes);
        for (i, a) in lifetimes.iter().enumerate() {
            for (j, b) in lifetimes.iter().enumerate().skip(i + 1) {
                let (p, q) = (layout.place(i), layout.place(j));
                let coexist = a.first <= b.last && b.first <= a.last;
                assert!(
                    !coexist || p.end <= q.start || q.end <= p.start,
                    "{i} and {j}"
                );
                assert!(p.end <= layout.len());
            }
        }
        let total: usize = lifetimes.iter().map(|l| l.len).sum();
        assert!(layout.len() * 3 < total, "{} of {total}", layout.len());
    }

    #[test]
    fn fixed_tensors_stay_and_are_avoided() {
        let lifetime = |len, first, last| Lifetime { len, first, last };
        let lifetimes = [
            lifetime(100, 0, 9),
            lifetime(40, 0, 1),
            lifetime(60, 2, 3),
            lifetime(16, 0, 9),
        ];
        let layout = Layout::with_fixed(&lifetimes, &[(3, 64..80), (0, 96..196)]);
        assert_eq!((layout.place(3), layout.place(0)), (64..80, 96..196));
        assert_eq!((layout.place(1), layout.place(2)), (0..40, 0..60));
        assert_eq!(layout.len(), 196);
    }

    #[test]
    fn extending_an_arena_keeps_its_content() {
        let mut arena = Arena::default();
        arena.reserve(50);
        arena.write(10..50).1.fill(3.0);
        arena.extend(5000);
        assert_eq!(arena.read().get(10..50), [3.0; 40]);
        assert_eq!(arena.write(4000..5000).1.len(), 1000);
    }

    #[test]
    fn written_ranges_are_readable_afterwards() {
        let mut arena = Arena::default();
        arena.reserve(100);
        let (reader, a, b) = arena.write_two(40..50, 10..20);
        a.fill(1.0);
        b.fill(2.0);
        assert_eq!(reader.get(20..40).len(), 20);
        assert_eq!(reader.get(50..100).len(), 50);
        assert_eq!(arena.read().get(40..50), [1.0; 10]);
        let (reader, out) = arena.write(0..10);
        out.copy_from_slice(reader.get(10..20));
        assert_eq!(arena.read().get(0..10), [2.0; 10]);
    }
}
