"""Training and evaluation modes of modules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def kept_modes(net: nn.Module) -> Iterator[None]:
    """Gives each module the mode back that it had, whatever happens within."""
    modes = [(module, module.training) for module in net.modules()]
    try:
        yield
    finally:
        # `train` of the network itself may reach what is no submodule.
        net.train(modes[0][1])
        for module, training in modes:
            module.training = training
