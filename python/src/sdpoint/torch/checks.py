"""What users get wrong, and what they are told to do."""

from __future__ import annotations

import operator
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .errors import InstanceError, WrapError
from .instance import Instance
from .stages import Stage
from .trace import Traced

if TYPE_CHECKING:
    from .network import Adjustable


def check_module(module: Any) -> None:
    """Raises an error if a module cannot be wrapped, whatever it computes."""
    if isinstance(module, type) or (callable(module) and not isinstance(module, nn.Module)):
        name = getattr(module, "__name__", "it")
        raise TypeError(f"wrap takes an nn.Module; call {name} first to make one")
    if not isinstance(module, nn.Module):
        raise TypeError(f"wrap takes an nn.Module, not {type(module).__name__}")
    name = type(module).__name__
    if name == "OptimizedModule":
        raise WrapError("wrap the network before it is compiled, then call net.compile()")
    if name in ("DistributedDataParallel", "DataParallel", "FullyShardedDataParallel"):
        raise WrapError(f"wrap the network first, then put it into {name}")
    if isinstance(module, torch.jit.ScriptModule):
        raise WrapError("a scripted module cannot be read: wrap the nn.Module that it was made of")


def check_points(points: Any) -> None:
    """Raises an error if `points` is no list of paths."""
    if points is None:
        return
    if isinstance(points, str):
        raise TypeError(f"points is a list of modules' paths: write points=['{points}']")
    if not points or not all(isinstance(name, str) for name in points):
        raise WrapError(
            "points names no module: give paths such as points=['layer1.0', 'layer2.0'], or "
            "leave it out, and residual blocks are found"
        )


def check_norms(tree: nn.Module, traced: Traced) -> None:
    """Raises an error unless each batch norm is called in one place."""
    seen: set[int] = set()
    for node in traced.nodes:
        if node.op == "call_function" and node.target in (
            nn.functional.batch_norm,
            torch.batch_norm,
        ):
            raise WrapError(
                f"'{traced.owners.get(node, '')}' calls F.batch_norm: use nn.BatchNorm2d, whose "
                "statistics can be kept for each instance"
            )
        if node.op != "call_module":
            continue
        norm = tree.get_submodule(node.target)
        if not isinstance(norm, _BatchNorm):
            continue
        if id(norm) in seen:
            raise WrapError(
                f"the batch norm '{node.target}' is shared: it is called more than once, and "
                "statistics belong to one place. Give each place a BatchNorm2d of its own"
            )
        seen.add(id(norm))


def check_images(x: Any) -> None:
    """Raises an error unless `x` is a batch of images."""
    if isinstance(x, Tensor) and x.dim() == 4:
        return
    if not isinstance(x, Tensor):
        hint = "; torch.from_numpy makes a tensor" if hasattr(x, "__array__") else ""
        raise TypeError(
            f"images are a tensor [batch, channels, height, width], not {type(x).__name__}{hint}"
        )
    hint = "; x.unsqueeze(0) makes a batch of one image" if x.dim() == 3 else ""
    raise ValueError(f"images are [batch, channels, height, width]; this is {list(x.shape)}{hint}")


def sides(size: Any) -> tuple[int, int]:
    """Height and width of images of `size`; raises an error if it is neither one nor two."""
    try:
        both = size if isinstance(size, Sequence) else (size, size)
        height, width = (operator.index(side) for side in both)
    except (TypeError, ValueError):
        raise TypeError(
            f"size is {size!r}: give the side of the images, or (height, width)"
        ) from None
    if min(height, width) < 1:
        raise ValueError(f"size is {size!r}: images have at least one pixel")
    return height, width


def warn_of_frozen_norms(paths: Sequence[str]) -> None:
    """Warns of batch norms in evaluation mode within a network that trains."""
    warnings.warn(
        f"{len(paths)} batch norms (the first is '{paths[0]}') are in evaluation mode while "
        "the network trains: instances train with the statistics of full, but are evaluated "
        "with their own. To freeze a layer, set requires_grad_(False) on its parameters and "
        "leave it in training mode; running statistics move in steps of full alone",
        stacklevel=_callers_level(),
    )


def _callers_level() -> int:
    """The `stacklevel` of the first caller outside of this package and PyTorch."""
    level, frame = 1, sys._getframe(1)
    inside = ("torch.", "sdpoint.")
    while frame.f_back is not None and f"{frame.f_globals.get('__name__')}.".startswith(inside):
        level, frame = level + 1, frame.f_back
    return level


def explained(
    error: Exception, net: Adjustable, stage: Stage, x: Tensor, instance: Instance
) -> Exception:
    """The error of a stage, with what is known of its cause; itself if nothing is."""
    if isinstance(error, (InstanceError, torch.cuda.OutOfMemoryError)):
        return error
    text = str(error)
    if "more than 1 value per channel" in text:
        return InstanceError(
            f"{instance} leaves a batch norm one value a channel (a batch of {x.shape[0]}, maps of "
            f"{x.shape[2]}x{x.shape[3]}): train with batches of two images and more; "
            "drop_last=True in the loader drops a last one of one image"
        )
    stages = net._plan.stages(stage in net._plan.training)
    if stage is stages[0]:
        unfit = _unfit(net, x)
        return unfit if unfit is not None else error
    before = [s.point.name for s in stages[: stages.index(stage)] if s.point]
    if instance.point not in before or x.dim() != 4:
        return error
    return InstanceError(
        f"{instance}: the layers behind its point cannot process maps of {x.shape[2]}x"
        f"{x.shape[3]}: {text.splitlines()[0]}. A pool of fixed size before the classifier "
        "becomes nn.AdaptiveAvgPool2d(1); points elsewhere are named by wrap(..., points=[...]); "
        "larger images help if the maps are too small"
    )


def _unfit(net: Adjustable, x: Tensor) -> Exception | None:
    """Why the first layers cannot process images, if it is their device, dtype or channels."""
    weight = next((p for p in net.parameters() if p.is_floating_point()), None)
    if weight is None:
        return None
    if x.device != weight.device:
        return ValueError(
            f"the images are on {x.device}, the network on {weight.device}: "
            f"images.to('{weight.device}')"
        )
    if not x.is_floating_point():
        return TypeError(
            f"the images are {_name(x)}: convert them to {_name(weight)} and normalise them as "
            "for training"
        )
    if x.dtype != weight.dtype:
        return TypeError(
            f"the images are {_name(x)}, the weights {_name(weight)}: images.to({weight.dtype}), "
            "and torch.autocast around the forward for mixed precision"
        )
    first = next((m for m in net.modules() if isinstance(m, nn.Conv2d)), None)
    if first is not None and x.shape[1] != first.in_channels:
        last = x.shape[3] == first.in_channels
        hint = ": x.permute(0, 3, 1, 2) puts channels first" if last else ""
        return ValueError(
            f"the images are {list(x.shape)}, {x.shape[1]} channels; the network takes "
            f"{first.in_channels}{hint}"
        )
    return None


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
