//! Aligned memory for tensors and packed weights, in huge pages where that pays off.

use std::alloc::Layout;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a cache line, and of the widest vector.
const LINE: usize = 64;

/// Bytes of a huge page on x86-64, and on Arm with pages of 4 KiB.
const HUGE_PAGE: usize = 2 << 20;

/// An array of floats, aligned to a cache line.
///
/// Arrays of two huge pages and more are aligned to huge pages and request them. Kernels read
/// several rows and planes at once, so that small pages cause many TLB misses: huge pages made a
/// training step of PreResNet-20 6 % faster (log in `docs/performance.md`: "weights packed by
/// vectors, tensors in huge pages").
pub struct AlignedVec {
    start: NonNull<f32>,
    len: usize,
    /// Floats that were allocated; if 0, `start` dangles.
    capacity: usize,
    /// The slab that contains them; `None` if they are an allocation of their own.
    slab: Option<Arc<Slab>>,
}

// SAFETY: the floats are owned, and accessible only by borrowing the array.
unsafe impl Send for AlignedVec {}
// SAFETY: as above.
unsafe impl Sync for AlignedVec {}

impl AlignedVec {
    /// `len` zeros.
    ///
    /// # Panics
    ///
    /// If the length in bytes exceeds `isize::MAX`.
    pub fn zeros(len: usize) -> Self {
        if len == 0 {
            return Self::default();
        }
        AlignedVec {
            start: allocate(layout(len)),
            len,
            capacity: len,
            slab: None,
        }
    }

    /// Bytes that were allocated.
    pub fn bytes(&self) -> usize {
        self.capacity * size_of::<f32>()
    }

    /// Sets the length to at most the allocated floats, whose content is unspecified.
    pub(crate) fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity, "{len} of {} floats", self.capacity);
        self.len = len;
    }
}

fn layout(len: usize) -> Layout {
    let bytes = len * size_of::<f32>();
    // Shorter arrays would contain less than one whole huge page on average.
    let align = if bytes >= 2 * HUGE_PAGE {
        HUGE_PAGE
    } else {
        LINE
    };
    Layout::from_size_align(bytes, align).expect("an array that memory can hold")
}

/// Allocates zeros.
fn allocate(layout: Layout) -> NonNull<f32> {
    if layout.align() == HUGE_PAGE {
        pages::allocate(layout)
    } else {
        heap::allocate(layout)
    }
}

/// Frees an array.
///
/// # Safety
///
/// It must come from [`allocate`] with the same layout, and not be used any more.
unsafe fn free(start: NonNull<f32>, layout: Layout) {
    // SAFETY: the caller's promise; the layout decides as in `allocate`.
    unsafe {
        if layout.align() == HUGE_PAGE {
            pages::free(start, layout);
        } else {
            heap::free(start, layout);
        }
    }
}

/// Arrays of the usual allocator.
mod heap {
    use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
    use std::ptr::NonNull;

    pub fn allocate(layout: Layout) -> NonNull<f32> {
        // SAFETY: no array that is allocated is empty. All-zero bytes are the float zero.
        let start = unsafe { alloc_zeroed(layout) }.cast::<f32>();
        NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout))
    }

    /// # Safety
    ///
    /// The array must come from [`allocate`] with the same layout, and not be used any more.
    pub unsafe fn free(start: NonNull<f32>, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { dealloc(start.as_ptr().cast(), layout) };
    }
}

/// Arrays in huge pages, mapped by themselves: pages are zeroed by the threads that use them
/// first, not once more here, and freed memory goes back to the system.
#[cfg(all(target_os = "linux", not(miri), not(sdpoint_own_memory)))]
mod pages {
    use std::alloc::{Layout, handle_alloc_error};
    use std::ptr::{self, NonNull};

    use super::HUGE_PAGE;

    /// A multiple of every system's page size.
    const PAGES: usize = 64 << 10;

    pub fn allocate(layout: Layout) -> NonNull<f32> {
        let bytes = layout.size().next_multiple_of(PAGES);
        let reserved = bytes + HUGE_PAGE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping touches no memory that is in use.
        let mapped = unsafe { libc::mmap(ptr::null_mut(), reserved, access, kind, -1, 0) };
        if mapped == libc::MAP_FAILED {
            handle_alloc_error(layout);
        }
        let before = mapped.align_offset(HUGE_PAGE);
        // SAFETY: both are within the mapping: `before` is less than a huge page.
        let (start, end) = unsafe { (mapped.byte_add(before), mapped.byte_add(before + bytes)) };
        // SAFETY: the parts before and after the array are whole pages of the mapping that
        // nobody uses. The advice changes no content; where the system refuses it, small pages
        // work too.
        unsafe {
            if before > 0 {
                libc::munmap(mapped, before);
            }
            if before < HUGE_PAGE {
                libc::munmap(end, HUGE_PAGE - before);
            }
            libc::madvise(start, bytes, libc::MADV_HUGEPAGE);
        }
        NonNull::new(start.cast()).expect("no mapping is at address 0")
    }

    /// # Safety
    ///
    /// The array must come from [`allocate`] with the same layout, and not be used any more.
    pub unsafe fn free(start: NonNull<f32>, layout: Layout) {
        // SAFETY: the caller's promise; these are the pages that `allocate` left mapped.
        unsafe { libc::munmap(start.as_ptr().cast(), layout.size().next_multiple_of(PAGES)) };
    }
}

#[cfg(not(all(target_os = "linux", not(miri), not(sdpoint_own_memory))))]
use heap as pages;

/// An allocation shared by several arrays, so that arrays too short for huge pages of their own are
/// in huge pages too.
struct Slab {
    start: NonNull<f32>,
    floats: usize,
}

// SAFETY: a slab does not access its floats, which belong to the arrays in it.
unsafe impl Send for Slab {}
// SAFETY: as above.
unsafe impl Sync for Slab {}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: allocated by `Slabs::zeros` with this layout, and no array is left in it.
        unsafe { free(self.start, layout(self.floats)) };
    }
}

/// The allocator of packed weights: many arrays, each read once per inference. Huge pages make
/// ResNet-50 about 1 % faster (log in `docs/performance.md`: "packed weights in huge pages").
#[derive(Default)]
pub(crate) struct Slabs {
    /// The slab that is being filled, and the number of its floats in use.
    filling: Mutex<Option<(Arc<Slab>, usize)>>,
}

impl Slabs {
    /// Floats of a slab.
    const FLOATS: usize = 4 * HUGE_PAGE / size_of::<f32>();

    /// `len` zeros.
    pub fn zeros(&self, len: usize) -> AlignedVec {
        let long = layout(len).align() == HUGE_PAGE;
        // `tests/sanitizers` needs separate allocations to detect accesses beyond an array.
        if len == 0 || long || cfg!(sdpoint_own_memory) {
            return AlignedVec::zeros(len);
        }
        let needed = len.next_multiple_of(LINE / size_of::<f32>());
        // Poisoning is harmless: the value is replaced as a whole, never half changed.
        let mut filling = self.filling.lock().unwrap_or_else(PoisonError::into_inner);
        let (slab, taken) = match filling.take() {
            Some((slab, taken)) if taken + needed <= slab.floats => (slab, taken),
            _ => {
                let start = allocate(layout(Self::FLOATS));
                let floats = Self::FLOATS;
                (Arc::new(Slab { start, floats }), 0)
            }
        };
        *filling = Some((slab.clone(), taken + needed));
        AlignedVec {
            // SAFETY: the slab has `needed` floats from `taken` on. They are zeros, as no other
            // array has contained them.
            start: unsafe { slab.start.add(taken) },
            len,
            capacity: len,
            slab: Some(slab),
        }
    }
}

/// Returns memory that was freed, but that the allocator keeps for later, to the system.
///
/// After a model is loaded, that is as much as its weights take: the allocator of glibc keeps
/// freed memory below any that is still in use. Other allocators are left to themselves.
pub fn release_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it does not touch memory that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Has blocks of at least `bytes` returned to the system whenever they are freed. Meant for programs
/// that allocate large blocks of changing sizes for a short time each, such as servers.
///
/// Otherwise glibc raises its limit for such blocks to the size of the largest that was freed, up to
/// 32 MiB. It keeps smaller ones, of which the next allocation may fit none. Other allocators are
/// left to themselves.
pub fn return_freed_blocks_from(bytes: usize) {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it does not touch memory that is in use, and only fails if the limit is too large.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, bytes.try_into().unwrap_or(i32::MAX));
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let _ = bytes;
}

impl Drop for AlignedVec {
    fn drop(&mut self) {
        if self.capacity > 0 && self.slab.is_none() {
            // SAFETY: allocated by `zeros` with this layout.
            unsafe { free(self.start, layout(self.capacity)) };
        }
    }
}

impl Default for AlignedVec {
    fn default() -> Self {
        AlignedVec {
            start: NonNull::dangling(),
            len: 0,
            capacity: 0,
            slab: None,
        }
    }
}

impl Clone for AlignedVec {
    fn clone(&self) -> Self {
        let mut copy = Self::zeros(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

impl fmt::Debug for AlignedVec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedVec")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl Deref for AlignedVec {
    type Target = [f32];

    #[inline(always)]
    fn deref(&self) -> &[f32] {
        // SAFETY: `len` is at most `capacity`, and all of that was initialised.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedVec {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as for `deref`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_in_slabs_are_their_own_and_outlive_them() {
        let slabs = Slabs::default();
        let lens = [3, 0, 70_000, 1, 2 * HUGE_PAGE, Slabs::FLOATS / 5];
        let mut arrays: Vec<AlignedVec> =
            (0..40).map(|i| slabs.zeros(lens[i % lens.len()])).collect();
        for (i, array) in arrays.iter_mut().enumerate() {
            assert!(array.iter().all(|&x| x == 0.0), "{i}");
            assert!(array.is_empty() || (array.as_ptr() as usize).is_multiple_of(LINE));
            array.fill(i as f32);
        }
        drop(slabs);
        arrays.truncate(30);
        for (i, array) in arrays.iter().enumerate() {
            assert_eq!(array.len(), lens[i % lens.len()]);
            assert!(array.iter().all(|&x| x == i as f32), "{i}");
        }
    }

    #[test]
    fn arrays_are_zero_aligned_and_their_own() {
        for len in [0, 1, 100, HUGE_PAGE, HUGE_PAGE + 3] {
            let mut a = AlignedVec::zeros(len);
            assert_eq!((a.len(), a.bytes()), (len, 4 * len));
            assert!(a.iter().all(|&x| x == 0.0));
            if len > 0 {
                assert_eq!(a.as_ptr() as usize % LINE, 0);
            }
            a.fill(1.0);
            let b = a.clone();
            a.fill(2.0);
            assert!(b.iter().all(|&x| x == 1.0) && b.len() == len);
        }
    }
}
