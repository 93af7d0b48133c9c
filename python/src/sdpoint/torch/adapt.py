"""From a trained network to an adjustable one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from .branches import loss
from .calibrate import calibrate
from .measure import Accuracy
from .network import Adjustable, wrap


@dataclass(frozen=True)
class Adapted:
    """An adjustable network, and its curves before and after it was adapted.

    The curves are empty if there were no test images. Every instance has its own
    statistics in both, so the difference is due to the training.
    """

    net: Adjustable
    before: list[Accuracy] = field(default_factory=list)
    after: list[Accuracy] = field(default_factory=list)


def adapt(
    net: nn.Module,
    loader: Iterable[Any],
    epochs: int,
    *,
    test: Iterable[Any] | None = None,
    ratios: Iterable[float] | None = None,
    rate: float = 0.02,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    label_smoothing: float = 0.0,
    autocast: torch.dtype | None = None,
    images: int = 5000,
    report: Callable[[str], None] | None = print,
    **options: Any,
) -> Adapted:
    """Fine-tunes a trained network with stochastic downsampling.

    `loader` yields training batches of (images, labels), shuffled and augmented. A fifth of
    the epochs that the network was trained for is a good starting point. `test` yields test
    batches, for the curves before and after. `net` is a plain network, which is wrapped
    with `ratios` and `options`, such as `method="sdpoint+"`, as by `wrap`, or a wrapped one.
    It is trained on its current device by SGD with Nesterov momentum and a cosine schedule
    from the learning rate `rate` to zero; a fifth to a tenth of the rate that the network was
    trained with from scratch suits most. `autocast` is a dtype, such as torch.bfloat16. At
    the end, every instance is calibrated with `images` training images.
    """
    if not isinstance(net, Adjustable):
        net = wrap(net, ratios, **options)
    elif ratios is not None or options:
        given = ", ".join(["ratios"] * (ratios is not None) + list(options))
        raise TypeError(f"the network is wrapped already: give {given} to wrap, not to adapt")
    if isinstance(loader, Iterator) or not isinstance(loader, Sized):
        raise TypeError("the loader has to have a length and to last: give a DataLoader or a list")
    trained = [p for p in net.parameters() if p.requires_grad]
    if not trained:
        raise ValueError("all parameters are frozen: requires_grad_(True) on those to be trained")
    before = _curve(net, loader, test, images)
    _report(report, "before", before)
    optimizer = torch.optim.SGD(
        trained,
        rate,
        momentum,
        weight_decay=weight_decay,
        nesterov=momentum > 0,
    )
    device = next(net.parameters()).device
    scaler = torch.amp.GradScaler(device.type, enabled=autocast == torch.float16)
    steps, step = max(1, epochs * len(loader)), 0
    for epoch in range(epochs):
        net.train().instance(None)
        loss_sum = torch.zeros((), device=device)
        for inputs, labels in loader:
            for group in optimizer.param_groups:
                group["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
            with torch.autocast(device.type, autocast, enabled=autocast is not None):
                output = net(inputs.to(device, non_blocking=True))
            labels = labels.to(device, non_blocking=True)
            progress = (step + 1) / steps
            found = loss(output, labels, label_smoothing=label_smoothing, progress=progress)
            scaler.scale(found).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            loss_sum += found.detach()
            step += 1
        mean = loss_sum.item() / len(loader)
        if not math.isfinite(mean):
            raise FloatingPointError("the loss is no number any more: try a lower rate")
        if report:
            report(f"epoch {epoch + 1} of {epochs}: loss {mean:.4f}")
    after = _curve(net, loader, test, images)
    _report(report, "after", after)
    return Adapted(net, before, after)


def _curve(net: Adjustable, loader: Any, test: Any, images: int) -> list[Accuracy]:
    calibrate(net, loader, images)
    return net.curve(test) if test is not None else []


def _report(report: Callable[[str], None] | None, when: str, rows: list[Accuracy]) -> None:
    if report and rows:
        mean = sum(row.top1 for row in rows) / len(rows)
        report(f"{when}: full {rows[0].top1:.2%}, mean over {len(rows)} instances {mean:.2%}")
