//! One block of memory for all tensors of a run, shared by those that are
//! never needed at the same time.

use std::ops::Range;

use sdpoint_kernels::AlignedVec;

/// When a tensor is needed: from the step that writes it to the last that
/// reads it, both included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetime {
    /// Floats.
    pub len: usize,
    /// The step that writes it first.
    pub first: usize,
    /// The last step that reads it.
    pub last: usize,
}

/// Where each tensor lies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    places: Vec<Range<usize>>,
    len: usize,
}

/// Tensors start at cache lines.
const ALIGNMENT: usize = 64 / size_of::<f32>();

impl Layout {
    /// Places tensors so that two that are needed at the same time never
    /// overlap.
    ///
    /// The largest goes first, each as low as it fits (greedy by size:
    /// Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net
    /// Inference", 2020).
    pub fn new(lifetimes: &[Lifetime]) -> Self {
        Self::around(lifetimes, &[])
    }

    /// As [`Layout::new`], with some tensors where they lie already.
    pub fn around(lifetimes: &[Lifetime], fixed: &[(usize, Range<usize>)]) -> Self {
        let mut places = vec![0..0; lifetimes.len()];
        // Those placed so far, by where they start.
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

    /// Where tensor `index` lies.
    pub fn place(&self, index: usize) -> Range<usize> {
        self.places[index].clone()
    }

    /// Puts tensor `index` where tensor `other` lies.
    pub fn share(&mut self, index: usize, other: usize) {
        self.places[index] = self.places[other].clone();
    }

    /// Floats that an [`Arena`] for this layout needs.
    pub fn len(&self) -> usize {
        self.len
    }
}

/// The memory itself.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    memory: AlignedVec,
}

impl Arena {
    /// Makes room for a layout of `len` floats. What was there is lost.
    pub fn reserve(&mut self, len: usize) {
        if self.memory.len() < len {
            // The old block is gone before the new one is asked for.
            self.memory = AlignedVec::default();
            self.memory = AlignedVec::zeros(len);
        }
    }

    /// Makes room for a layout of `len` floats and keeps what is there.
    pub fn extend(&mut self, len: usize) {
        if self.memory.len() < len {
            let mut larger = AlignedVec::zeros(len);
            larger[..self.memory.len()].copy_from_slice(&self.memory);
            self.memory = larger;
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// Borrows everything to read.
    pub fn read(&self) -> Reader<'_> {
        Reader::new([(0, &self.memory), (0, &[]), (0, &[])])
    }

    /// Borrows one place to write and the rest to read.
    pub fn write(&mut self, place: Range<usize>) -> (Reader<'_>, &mut [f32]) {
        let (reader, out, _) = self.write_two(place.clone(), place.end..place.end);
        (reader, out)
    }

    /// Borrows two places to write and the rest to read.
    ///
    /// # Panics
    /// If the places overlap.
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

/// The part of an arena that is not being written.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    pieces: [(usize, &'a [f32]); 3],
}

impl<'a> Reader<'a> {
    fn new(pieces: [(usize, &'a [f32]); 3]) -> Self {
        Self { pieces }
    }

    /// The tensor at a place.
    ///
    /// # Panics
    /// If the place is being written, which a plan never asks for.
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
    fn tensors_of_the_same_time_never_overlap() {
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
                let meet = a.first <= b.last && b.first <= a.last;
                assert!(!meet || p.end <= q.start || q.end <= p.start, "{i} and {j}");
                assert!(p.end <= layout.len());
            }
        }
        let apart: usize = lifetimes.iter().map(|l| l.len).sum();
        assert!(layout.len() * 3 < apart, "{} of {apart}", layout.len());
    }

    #[test]
    fn what_lies_already_stays_and_is_avoided() {
        let lifetime = |len, first, last| Lifetime { len, first, last };
        let lifetimes = [
            lifetime(100, 0, 9),
            lifetime(40, 0, 1),
            lifetime(60, 2, 3),
            lifetime(16, 0, 9),
        ];
        let layout = Layout::around(&lifetimes, &[(3, 64..80), (0, 96..196)]);
        assert_eq!((layout.place(3), layout.place(0)), (64..80, 96..196));
        assert_eq!((layout.place(1), layout.place(2)), (0..40, 0..60));
        assert_eq!(layout.len(), 196);
    }

    #[test]
    fn an_arena_grows_around_what_it_holds() {
        let mut arena = Arena::default();
        arena.reserve(50);
        arena.write(10..50).1.fill(3.0);
        arena.extend(5000);
        assert_eq!(arena.read().get(10..50), [3.0; 40]);
        assert_eq!(arena.write(4000..5000).1.len(), 1000);
    }

    #[test]
    fn what_is_written_can_be_read_elsewhere() {
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
