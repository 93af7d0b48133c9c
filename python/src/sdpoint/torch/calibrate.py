"""Batch-norm statistics of every instance, after training."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import SequentialSampler

from .errors import StatisticsError
from .instance import FULL, Instance
from .modes import kept_modes
from .network import Adjustable, unwrapped

Buffers = dict[str, dict[str, Tensor]]


@torch.no_grad()
def calibrate(
    net: nn.Module,
    loader: Iterable[Any],
    images: int = 5000,
    instances: Iterable[str] | None = None,
) -> None:
    """Computes the batch-norm statistics of `full` and of `instances`, without training.

    The mean and variance of a batch norm in an instance are the plain average over
    batches of `loader`, until `images` training images were used. They must be shuffled
    over all classes. Layers before a point are computed once for all its instances. The
    loader yields batches of images, or tuples whose first element is one. In a
    distributed run, each process contributes its share of the images, and the averages
    are over all processes.

    By default, `instances` are those of `net.instances`; any ratio is allowed.
    """
    net = unwrapped(net)
    if images < 1:
        raise ValueError(f"images is {images}: give the number of images to calibrate with")
    _warn_of_order(loader, images)
    chosen = [net.parsed(name) for name in (instances or net.instances)]
    chosen = [instance for instance in chosen if instance.point is not None]
    norms = [net._norms.module(path) for path in net._norms.paths]
    momenta = [norm.momentum for norm in norms]
    sums = {FULL: _blank(net, net._norms.paths)}
    sums |= {str(instance): _blank(net, net._behind(instance)) for instance in chosen}
    seen = 0
    with kept_modes(net):
        net.eval()
        try:
            for norm in norms:
                norm.training, norm.momentum = True, None
            for batch in _batches(loader, _share(images)):
                _add(net, batch.to(_device(net), non_blocking=True), chosen, sums)
                seen += len(batch)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
    if not seen:
        raise StatisticsError("the loader gave no images to calibrate with")
    _average_over_ranks(sums)
    for path, buffers in sums.pop(FULL).items():
        own = net._norms.module(path)._buffers
        own["running_mean"].copy_(buffers["running_mean"])
        own["running_var"].copy_(buffers["running_var"])
    net.statistics.own = {
        instance: {path: (b["running_mean"], b["running_var"]) for path, b in buffers.items()}
        for instance, buffers in sums.items()
    }
    # They belonged to the statistics that are replaced.
    net.statistics.parameters = {}
    net.statistics.stale = None


def _add(net: Adjustable, x: Tensor, instances: list[Instance], sums: dict[str, Buffers]) -> None:
    """Runs a batch through `full`, and from each point on through its instances."""
    stages = net._plan.evaluation
    for place, stage in enumerate(stages):
        here = [i for i in instances if stage.point is not None and i.point == stage.point.name]
        with net._norms.bound(sums[FULL]):
            before, x = x, net.apply_stage(stage.run, stage, x, Instance())
        for instance in here:
            y = stage.downsampled(before, x, instance.ratio)
            with net._norms.bound(sums[str(instance)]):
                for later in stages[place + 1 :]:
                    y = net.apply_stage(later.run, later, y, instance)


def _blank(net: Adjustable, paths: Iterable[str]) -> Buffers:
    """Buffers in which a norm without momentum takes the plain average of batches."""
    blank = {}
    for path in paths:
        own = net._norms.module(path).running_mean
        blank[path] = {
            "running_mean": torch.zeros_like(own),
            "running_var": torch.zeros_like(own),
            "num_batches_tracked": torch.zeros((), dtype=torch.long, device=own.device),
        }
    return blank


def _batches(loader: Iterable[Any], images: int) -> Iterator[Tensor]:
    """Batches of images until there are enough; a smaller last one is left out.

    Every batch counts the same in the average, so that a small one would count too much.
    """
    seen, size = 0, 0
    for entry in loader:
        batch = entry[0] if isinstance(entry, (tuple, list)) else entry
        if not isinstance(batch, Tensor) or batch.dim() != 4:
            raise TypeError(
                "the loader has to give batches of images [N, C, H, W], or tuples whose first is "
                f"one; it gave {_described(batch)}"
            )
        size = max(size, len(batch))
        left = images - seen
        if len(batch) > left and seen:
            batch = batch[:left]
        if seen and len(batch) < size:
            return
        yield batch[:images]
        seen += len(batch)
        if seen >= images:
            return


def _described(entry: Any) -> str:
    if isinstance(entry, Tensor):
        return f"a tensor {list(entry.shape)}"
    return type(entry).__name__


def _warn_of_order(loader: Any, images: int) -> None:
    sampler, data = getattr(loader, "sampler", None), getattr(loader, "dataset", None)
    try:
        count = len(data) if data is not None else 0
    except TypeError:
        return
    if isinstance(sampler, SequentialSampler) and count > images:
        warnings.warn(
            f"calibrating on the first {images} of {count} images in their order: data sets come "
            "sorted by class, and statistics of some classes are wrong for the others. Pass a "
            "loader with shuffle=True",
            stacklevel=4,
        )


def _device(net: nn.Module) -> torch.device:
    return next(net.parameters()).device


def _world() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _share(images: int) -> int:
    return -(-images // _world())


def _average_over_ranks(sums: dict[str, Buffers]) -> None:
    if _world() == 1:
        return
    tensors = [
        buffers[kind]
        for instance in sums.values()
        for buffers in instance.values()
        for kind in ("running_mean", "running_var")
    ]
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    flat /= _world()
    for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))
