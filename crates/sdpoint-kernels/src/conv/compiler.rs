//! Restrains the compiler where it would need more registers than there are.

/// The same value, opaque to the optimiser, which would otherwise precompute an address per pixel,
/// more than there are registers.
#[inline(always)]
pub(super) fn in_register(value: usize) -> usize {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    {
        let mut value = value;
        // SAFETY: there are no instructions.
        unsafe {
            std::arch::asm!(
                "/* {0} */",
                inout(reg) value,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        value
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    value
}

/// Keeps the compiler from moving loads past the call. It would load the next pixels and weights
/// early, and spill sums for want of registers.
#[inline(always)]
pub(super) fn keep_order() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: there are no instructions.
    unsafe {
        std::arch::asm!("", options(nostack, preserves_flags));
    }
}
