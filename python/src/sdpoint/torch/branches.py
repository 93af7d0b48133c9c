"""Branches: instances that learn from `full` within the same step.

As with `sdpoint train --method branched`: `full` runs on the whole batch, which is divided
into parts. An instance is drawn for each part and branches off at its point from the
activations of `full`, so that no layer before a point is computed twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor

HINT = (
    "with branches, a network in training returns the logits of full in .full, and those of "
    "branches in .branches; sdpoint.torch.loss(output, labels) computes the loss"
)

#: Images that a branch has at least, unless the batch has fewer: the statistics of its
#: batch norms are those of its images.
MIN_IMAGES = 4


@dataclass(frozen=True)
class Branching:
    """How branches train; `loss` has the formula.

    `branches` is the number of parts of a batch, `weight` the weight of their mean loss.
    `distill` is the share of the predictions of `full` in what they learn, which rises from
    zero over the part `ramp` of the run; `temperature` divides the logits of both.
    """

    branches: int = 4
    weight: float = 1.0
    distill: float = 0.5
    temperature: float = 1.0
    ramp: float = 1 / 3

    def __post_init__(self) -> None:
        for name, least, most in (
            ("branches", 1, 64),
            ("weight", 0, 100),
            ("distill", 0, 1),
            ("temperature", 0.1, 100),
            ("ramp", 0, 1),
        ):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or (name == "branches" and value != int(value)):
                raise TypeError(f"{name} is {value!r}: give a number")
            if not least <= value <= most:
                raise ValueError(f"{name} is {value}: give a number from {least} to {most}")

    def share(self, progress: float) -> float:
        """The share of the predictions when the part `progress` of a run is done."""
        return self.distill * (min(1.0, progress / self.ramp) if self.ramp > 0 else 1.0)


class Branch(NamedTuple):
    """The logits of an instance for its images of the batch."""

    instance: str
    images: slice
    logits: Tensor


class Branched(NamedTuple):
    """What a wrapped network returns in training with branches; `loss` takes it."""

    #: The logits of `full` for the whole batch.
    full: Tensor
    branches: tuple[Branch, ...]
    branching: Branching

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a Branched has no '{name}': {HINT}")

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "this function")
        raise TypeError(f"{name} takes no Branched: {HINT}")


def parts(count: int, images: int) -> list[slice]:
    """The images of each of at most `count` parts of a batch.

    >>> parts(4, 10)
    [slice(0, 5, None), slice(5, 10, None)]
    """
    count = min(count, max(1, images // MIN_IMAGES))
    return [slice(i * images // count, (i + 1) * images // count) for i in range(count)]


def loss(
    output: Tensor | Branched,
    labels: Tensor,
    *,
    label_smoothing: float = 0.0,
    progress: float = 1.0,
) -> Tensor:
    """The loss of a training step, of what a wrapped network returned.

    Without branches this is the cross-entropy. With branches *s* on *n(s)* images each::

        L    = CE(full, labels) + weight · Σ n(s) · L(s) / Σ n(s)
        L(s) = (1 - τ) · CE(s, labels) + τ · T² · KL(p(full) ‖ p(s))

    with the softmax *p* of logits divided by the temperature *T* (arXiv 1503.02531), and no
    gradient through the predictions of `full`. τ is `Branching.share(progress)`; `progress`
    is the part of the run that is done after this step, from 0 to 1. `labels` are classes,
    or probabilities of classes, as mixup gives them.
    """
    if isinstance(output, Tensor):
        return F.cross_entropy(output.float(), labels, label_smoothing=label_smoothing)
    if not isinstance(output, Branched):
        raise TypeError(
            f"loss takes what the network returned, logits or a Branched, not a "
            f"{type(output).__name__}; reentrant checkpointing takes it apart, use_reentrant=False "
            "does not"
        )
    if not 0 <= progress <= 1:
        raise ValueError(
            f"progress is {progress}; it is the part of the run that is done, from 0 to 1: "
            "(step + 1) / steps"
        )
    full, branching = output.full, output.branching
    share, temperature = branching.share(progress), branching.temperature
    teacher = F.log_softmax(full.detach().float() / temperature, 1)
    total = F.cross_entropy(full.float(), labels, label_smoothing=label_smoothing)
    images = sum(len(branch.logits) for branch in output.branches)
    for branch in output.branches:
        logits = branch.logits.float()
        own = F.cross_entropy(logits, labels[branch.images], label_smoothing=label_smoothing)
        student = F.log_softmax(logits / temperature, 1)
        taught = F.kl_div(student, teacher[branch.images], reduction="batchmean", log_target=True)
        part = branching.weight * len(logits) / images
        total = total + part * ((1 - share) * own + share * temperature**2 * taught)
    return total
