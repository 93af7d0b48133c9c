//! A mutable slice shared by threads that write disjoint parts.

use std::marker::PhantomData;
use std::ops::Range;

/// A mutable slice that several threads write at once, each its own elements. For partitions that
/// `chunks_mut` cannot express, such as the outputs of a rectangle of pixels.
#[derive(Clone, Copy)]
pub(crate) struct SharedMut<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: the elements are accessible only through `unsafe` methods and raw pointers, whose users
// ensure that no two threads access the same element.
unsafe impl<T: Send> Send for SharedMut<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        SharedMut {
            start: slice.as_mut_ptr(),
            len: slice.len(),
            slice: PhantomData,
        }
    }

    /// The elements of `range`.
    ///
    /// # Safety
    ///
    /// While the result lives, no element of `range` may be accessed through a copy of `self`.
    #[inline(always)]
    pub(crate) unsafe fn slice(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "range outside the slice"
        );
        // SAFETY: the range is within the slice that `new` borrowed for 'a, and the caller
        // promises that it is not used elsewhere.
        unsafe {
            std::slice::from_raw_parts_mut(self.start.add(range.start), range.end - range.start)
        }
    }

    /// Elements of the slice.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// A pointer to the first element, for kernels that compute addresses themselves.
    #[inline(always)]
    pub(crate) fn as_ptr(&self) -> *mut T {
        self.start
    }
}
