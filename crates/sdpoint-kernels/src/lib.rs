//! SIMD kernels for convolutional networks on CPUs: f32, NHWC, forward and backward.
//!
//! Every kernel takes a [`Context`], which holds the threads, the instruction set and working
//! memory, and slices that the caller owns. A slice whose length does not fit the stated shape is a
//! programming error: the kernel panics with a message that names the slice. No result depends on
//! the number of threads.

mod activation;
mod array;
mod context;
mod conv;
pub mod elementwise;
mod isa;
mod lanes;
mod linear;
pub mod loss;
mod memory;
pub mod norm;
pub mod optimizer;
mod peak;
pub mod pool;
mod scratch;
mod shared_mut;
mod sync;
mod workers;

pub use activation::Activation;
pub use context::{Context, ContextError};
pub use conv::{
    AlgorithmChoice, ConvAlgorithm, ConvGeometry, ConvShape, Epilogue, PackedConv,
    PackedConvTranspose, Residual, SecondOutput, UnknownAlgorithm, WinogradTile,
    conv_backward_data, conv_backward_weights, conv_forward,
};
pub use isa::{Isa, UnknownIsa};
pub use linear::{
    PackedLinear, linear_backward_data, linear_backward_weights, linear_forward, linear_shape,
};
pub use memory::{AlignedVec, release_freed_memory, return_freed_blocks_from};
pub use peak::peak_gflops;
