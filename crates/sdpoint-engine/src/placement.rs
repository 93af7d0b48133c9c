//! A lowered network for one batch size, with the memory layout of its tensors.

use std::ops::Range;

use sdpoint_core::Conv;
use sdpoint_kernels::ConvShape;
use sdpoint_kernels::pool::PoolGeometry;

use crate::arena::{Layout, Reader};
use crate::lower::{Lowered, Node, Value};

/// A lowered network and the layout of its tensors in an
/// [`Arena`](crate::arena::Arena).
#[derive(Debug)]
pub(crate) struct Placement {
    pub lowered: Lowered,
    pub layout: Layout,
    /// The pooling geometry of each value that a pooling operation produces.
    pools: Vec<Option<PoolGeometry>>,
    /// The number of images.
    pub batch: usize,
}

/// A tensor in the arena: a value of the forward pass, or a gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Buffer(pub usize);

impl From<Value> for Buffer {
    /// Values come first, in their order; gradients follow.
    fn from(value: Value) -> Self {
        Self(value.0)
    }
}

impl Placement {
    pub fn new(lowered: Lowered, layout: Layout, batch: usize) -> Self {
        Self {
            pools: lowered.pools(batch),
            lowered,
            layout,
            batch,
        }
    }

    /// The range of a tensor in the arena.
    pub fn place(&self, buffer: impl Into<Buffer>) -> Range<usize> {
        self.layout.place(buffer.into().0)
    }

    /// The pooling geometry of a node.
    ///
    /// # Panics
    /// If the node is not a pooling operation.
    pub fn pool(&self, node: &Node) -> &PoolGeometry {
        let pool = self.pools[node.output.0].as_ref();
        pool.expect("the node is a pooling operation")
    }

    /// The kernel shape of a convolution of `input`.
    pub fn conv_shape(&self, input: Value, conv: &Conv) -> ConvShape {
        self.lowered.conv_shape(input, conv, self.batch)
    }

    /// The channels of a value.
    pub fn channels(&self, value: Value) -> usize {
        self.lowered.shapes[value.0].channels
    }
}

/// The tensors that a step may read: those in the arena that it does not
/// write, and the images, which stay in the caller's buffer.
#[derive(Clone, Copy)]
pub(crate) struct Tensors<'a> {
    pub placement: &'a Placement,
    pub reader: Reader<'a>,
    pub images: &'a [f32],
}

impl<'a> Tensors<'a> {
    /// The values of a tensor.
    pub fn get(&self, buffer: impl Into<Buffer>) -> &'a [f32] {
        let buffer = buffer.into();
        if buffer == Buffer::from(self.placement.lowered.input) {
            self.images
        } else {
            self.reader.get(self.placement.place(buffer))
        }
    }
}
