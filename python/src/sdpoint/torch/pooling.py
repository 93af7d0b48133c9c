"""What a downsampling point does to a feature map.

Both functions are leaves for `torch.fx`: the sizes are computed when they
run, not when they are traced.
"""

from __future__ import annotations

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor


def kept(side: int, ratio: float) -> int:
    """What is left of a side: `side * ratio`, halves to even, at least 1.

    >>> kept(21, 0.5), kept(7, 0.5), kept(14, 0.75), kept(1, 0.5)
    (10, 4, 10, 1)
    """
    return max(1, round(side * ratio))


def windows(side: int, kernel: int, stride: int, padding: int, ceil: bool = False) -> int:
    """How many pooling windows fit along a side, as PyTorch counts them."""
    span = side + 2 * padding - kernel
    if not ceil:
        return span // stride + 1
    count = -(-span // stride) + 1
    # A window that would start in the padding on the far side is dropped.
    return count - 1 if (count - 1) * stride >= side + padding else count


@torch.fx.wrap
def downsample(x: Tensor, ratio: float) -> Tensor:
    """A block's point: adaptive average pooling of `[N, C, H, W]`."""
    return F.adaptive_avg_pool2d(x, (kept(x.shape[2], ratio), kept(x.shape[3], ratio)))


@torch.fx.wrap
def downsample_stem(x: Tensor, pool: PoolWindow, ratio: float) -> Tensor:
    """The stem's point: adaptive max pooling in place of the max pool `pool`.

    `x` is the max pool's input; the ratio is of the size that it would have given.
    """
    return F.adaptive_max_pool2d(x, [kept(side, ratio) for side in pool.output(x.shape[2:])])


class PoolWindow:
    """The numbers of a max pool, each height first."""

    def __init__(self, kernel, stride, padding, dilation=1, ceil_mode=False) -> None:
        self.kernel, self.stride = pair(kernel), pair(kernel if stride in (None, ()) else stride)
        self.padding, self.dilation = pair(padding), pair(dilation)
        self.ceil = bool(ceil_mode)

    def output(self, size) -> list[int]:
        """Height and width of the output for an input of `size`."""
        return [
            windows(
                int(side),
                self.dilation[axis] * (self.kernel[axis] - 1) + 1,
                self.stride[axis],
                self.padding[axis],
                self.ceil,
            )
            for axis, side in enumerate(size)
        ]


def pair(value) -> tuple[int, int]:
    """A number for both sides, or one for each, as PyTorch's layers take them.

    >>> pair(3), pair((1, 2))
    ((3, 3), (1, 2))
    """
    if isinstance(value, (tuple, list)):
        first, second = value if len(value) == 2 else (value[0], value[0])
        return int(first), int(second)
    return int(value), int(value)
