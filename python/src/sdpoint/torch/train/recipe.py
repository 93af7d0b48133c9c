"""Optimisation recipes: those of `sdpoint train`, number by number."""

from __future__ import annotations

import math
from argparse import Namespace
from dataclasses import dataclass, replace
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Recipe:
    """Stochastic gradient descent for a whole run.

    `batch` is the images of a step, over all processes; `warm_up` the part of all steps
    in which the rate rises to its peak. Without `milestones` (in epochs) it then falls as
    half a cosine, with them by `factor` at each.
    """

    epochs: int
    batch: int
    rate: float
    weight_decay: float
    nesterov: bool = False
    momentum: float = 0.9
    warm_up: float = 0.0
    milestones: tuple[float, ...] = ()
    factor: float = 0.1
    decay_norms: bool = True
    label_smoothing: float = 0.0

    def rate_at(self, step: int, steps_per_epoch: int) -> float:
        """The learning rate of a step, counted from zero over all epochs.

        >>> Recipe(2, 8, 0.1, 0.0).rate_at(10, 10)
        0.05
        """
        steps = self.epochs * steps_per_epoch
        warm = round(self.warm_up * steps)
        ramp = (step + 1) / warm if step < warm else 1.0
        if self.milestones:
            passed = sum(step / steps_per_epoch >= at for at in self.milestones)
            return self.rate * ramp * self.factor**passed
        done = max(0, step - warm) / max(1, steps - warm)
        return self.rate * ramp * (1 + math.cos(math.pi * min(1.0, done))) / 2

    def with_epochs(self, epochs: int) -> Recipe:
        """The same over another number of epochs: milestones move in proportion."""
        moved = tuple(at * epochs / self.epochs for at in self.milestones)
        return replace(self, epochs=epochs, milestones=moved)


RECIPES = {
    # Images of some 32 pixels, in an afternoon.
    "cifar-cosine": Recipe(15, 128, 0.1, 5e-4, nesterov=True, warm_up=0.1),
    # Wide ResNets, arXiv 1605.07146.
    "cifar": Recipe(200, 128, 0.1, 5e-4, nesterov=True, milestones=(60, 120, 160), factor=0.2),
    # The code of the method's authors.
    "imagenet": Recipe(115, 256, 0.1, 1e-4, milestones=(40, 75, 105)),
}


def recipe_of(options: Namespace, small: bool) -> Recipe:
    """The recipe with what the command line changes."""
    recipe = RECIPES[options.recipe or ("cifar-cosine" if small else "imagenet")]
    if options.epochs:
        recipe = recipe.with_epochs(options.epochs)
    changes = {
        name: getattr(options, name)
        for name in ("batch", "rate", "warm_up", "weight_decay", "label_smoothing")
        if getattr(options, name) is not None
    }
    return replace(recipe, decay_norms=not options.no_norm_decay, **changes)


def groups(net: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Parameters with weight decay, and those that are spared."""
    if recipe.decay_norms:
        return [{"params": list(net.parameters()), "weight_decay": recipe.weight_decay}]
    spared, decayed = [], []
    for parameter in net.parameters():
        (spared if parameter.dim() < 2 else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
