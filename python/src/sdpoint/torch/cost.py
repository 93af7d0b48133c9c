"""Multiply-accumulates of instances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .errors import EngineError
from .instance import Instance
from .modes import kept_modes

if TYPE_CHECKING:
    from .network import Adjustable


def of(
    net: Adjustable, size: tuple[int, int], channels: int | None, instances: Sequence[Instance]
) -> dict[str, int]:
    """The cost of each instance for one image: from the layers where the engine has them."""
    try:
        description = net.lowered().description
    except EngineError:
        return _counted(net, size, channels or _input_channels(net), instances)
    return {str(instance): description.macs(size, instance) for instance in instances}


def _counted(
    net: Adjustable, size: tuple[int, int], channels: int, instances: Sequence[Instance]
) -> dict[str, int]:
    """Counts what PyTorch would compute, on tensors without data."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    found = {}
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with kept_modes(net), fake, torch.no_grad():
        net.eval()
        device = next((p.device for p in net.parameters()), torch.device("cpu"))
        image = torch.empty(1, channels, *size, device=device)
        for instance in instances:
            with FlopCounterMode(display=False) as counter:
                x = image
                for stage in net._plan.evaluation:
                    x = net.apply_stage(stage.run, stage, x, instance)
            found[str(instance)] = counter.get_total_flops() // 2
    return found


def _input_channels(net: nn.Module) -> int:
    """Colours of the images, as the first convolution has them."""
    return next((m.in_channels for m in net.modules() if isinstance(m, nn.Conv2d)), 3)
