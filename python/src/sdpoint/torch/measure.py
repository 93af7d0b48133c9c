"""Measurements of instances: accuracy on test images, time on a device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from . import checks
from .instance import Instance
from .modes import kept_modes

if TYPE_CHECKING:
    from .network import Adjustable


@dataclass(frozen=True)
class Accuracy:
    """An instance on test images: accuracies from 0 to 1, mean cross-entropy in nats."""

    instance: str
    macs: int
    share: float
    top1: float
    top5: float
    loss: float

    def as_json(self) -> dict[str, Any]:
        """All of it by name."""
        return asdict(self)


@dataclass(frozen=True)
class Timing:
    """The time of an instance on a device: the median for one batch, in milliseconds."""

    instance: str
    macs: int
    share: float
    milliseconds: float
    time_share: float


@torch.no_grad()
def curve(
    net: Adjustable, loader: Iterable[Any], instances: Sequence[str] | None = None
) -> list[Accuracy]:
    """Measures every instance on batches of (images, labels), in evaluation mode.

    Layers before a point are computed once for all its instances. In a distributed run,
    each process contributes its share of the images, and all get the result.
    """
    chosen = [net.parsed(name) for name in (instances or net.instances)]
    buffers = {str(instance): net.lent(instance) for instance in chosen}
    device = next(net.parameters()).device
    sums = torch.zeros(len(chosen), 3, dtype=torch.float64, device=device)
    count, size, channels = 0, (1, 1), 3
    with kept_modes(net):
        net.eval()
        for entry in loader:
            images, labels = _pair(entry)
            if labels.dim() != 1 or labels.dtype.is_floating_point:
                raise ValueError(
                    f"labels have shape {tuple(labels.shape)} and dtype {labels.dtype}: curves are "
                    "measured with a class number for each image, not with mixed labels"
                )
            images, labels = images.to(device), labels.to(device)
            size, channels = tuple(images.shape[2:]), images.shape[1]
            for row, logits in _all_logits(net, images, chosen, buffers):
                sums[row] += _sums(logits.float(), labels)
            count += len(labels)
    total = torch.tensor(float(count), dtype=torch.float64, device=device)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(sums)
        dist.all_reduce(total)
    if not total.item():
        raise ValueError("the loader gave no images to measure on")
    costs = net.cost(size, channels)
    costs |= _missing_costs(net, size, chosen, costs)
    return [
        Accuracy(str(i), costs[str(i)], costs[str(i)] / costs["full"], *(row / total).tolist())
        for i, row in zip(chosen, sums, strict=True)
    ]


def _pair(entry: Any) -> tuple[Tensor, Tensor]:
    """Images and labels of a loader's batch."""
    pair = isinstance(entry, (tuple, list)) and len(entry) == 2
    if not pair or not all(isinstance(part, Tensor) for part in entry):
        raise TypeError(
            f"the loader gave a {type(entry).__name__}: curves are measured on batches that are "
            "pairs (images, labels) of tensors, as a torch.utils.data.DataLoader gives them"
        )
    checks.check_images(entry[0])
    return entry[0], entry[1]


def _missing_costs(net, size, chosen, known) -> dict[str, int]:
    from . import cost

    missing = [i for i in chosen if str(i) not in known]
    return cost.of(net, size, None, missing) if missing else {}


def _all_logits(net: Adjustable, x: Tensor, chosen: Sequence[Instance], buffers):
    """(row, logits) of each instance; the stages before a point run once."""
    stages = net._plan.evaluation
    for place, stage in enumerate(stages):
        before, x = x, net._stage(stage, x, Instance())
        for row, instance in enumerate(chosen):
            if stage.point is None or instance.point != stage.point.name:
                continue
            y = stage.downsampled(before, x, instance.ratio)
            with net._norms.bound(buffers[str(instance)]):
                for later in stages[place + 1 :]:
                    y = net._stage(later, y, instance)
            yield row, y
    for row, instance in enumerate(chosen):
        if instance.point is None:
            yield row, x


def _sums(logits: Tensor, labels: Tensor) -> Tensor:
    """The numbers of correct top-1 and top-5 predictions, and the sum of cross-entropies."""
    best = logits.topk(min(5, logits.shape[1]), 1).indices
    right = best == labels[:, None]
    loss = F.cross_entropy(logits, labels, reduction="sum")
    return torch.stack([right[:, 0].sum(), right.sum(), loss]).double()


def profile(
    net: Adjustable,
    device: torch.device | str | None = None,
    batch: int = 1,
    size: int | tuple[int, int] = 224,
    *,
    channels: int = 3,
    training: bool = False,
    rounds: int = 10,
    instances: Sequence[str] | None = None,
    autocast: torch.dtype | None = None,
    channels_last: bool = False,
) -> list[Timing]:
    """Measures the time of every instance for random images, alternating between them.

    With `training`, it measures the forward and the backward pass of a training step.
    The network is moved to `device`, if one is given. On GPUs, time is not proportional
    to MACs, as small feature maps do not keep a GPU busy.
    """
    if device is not None:
        net.to(device)
    device = next(net.parameters()).device
    height, width = checks.sides(size)
    for name, number in (("batch", batch), ("rounds", rounds)):
        if number < 1:
            raise ValueError(f"{name} is {number}: give 1 or more")
    images = torch.randn(batch, channels, height, width, device=device)
    if channels_last:
        images = images.to(memory_format=torch.channels_last)
    names = list(instances or net.instances)
    times: dict[str, list[float]] = {name: [] for name in names}
    grads = [(p, p.grad) for p in net.parameters()]
    with kept_modes(net):
        net.train(training)
        # Two rounds unmeasured, for caches, autotuning and compilation.
        for number in range(-2, rounds):
            for name in names:
                elapsed = _once(net, net.parsed(name), images, training, autocast)
                if number >= 0:
                    times[name].append(elapsed)
    for parameter, grad in grads:
        parameter.grad = grad
    costs = net.cost((height, width), channels)
    costs |= _missing_costs(net, (height, width), [net.parsed(n) for n in names], costs)
    medians = {name: statistics.median(values) for name, values in times.items()}
    slowest = medians.get("full", max(medians.values()))
    return [
        Timing(n, costs[n], costs[n] / costs["full"], medians[n], medians[n] / slowest)
        for n in names
    ]


def _once(net: Adjustable, instance: Instance, images: Tensor, training: bool, autocast) -> float:
    """Milliseconds of one pass; statistics decide nothing about time."""
    _synchronize(images.device)
    start = time.perf_counter()
    enabled = autocast is not None
    with (
        torch.set_grad_enabled(training),
        torch.autocast(images.device.type, autocast, enabled=enabled),
        net._norms.bound(net._norms.scratch() if training else {}),
    ):
        x = images
        for stage in net._plan.stages(training):
            x = net._stage(stage, x, instance)
    if training:
        x.float().square().mean().backward()
    _synchronize(images.device)
    return 1e3 * (time.perf_counter() - start)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
