"""Which instance a training step runs.

A draw is a function of the seed and the step alone, so that all ranks draw the
same and a resumed run draws what the uninterrupted one would have drawn.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence

from .instance import FULL, Instance


class Draws:
    """Draws the instances of a training run.

    `step` counts the draws; it and `seed` may be set at any time, and are part of
    `state_dict`. `method` is the distribution:

    - `"uniform"`: as in the paper, `full` or one of the points, all equally likely,
      then one of the ratios, all equally likely;
    - `"instances"`: all instances equally likely;
    - `"cost:P"`: in proportion to the multiply-accumulates to the power P (-1 favours
      cheap instances);
    - `"full:P"`: `full` with probability P, otherwise a random point and ratio.
    """

    def __init__(self, method: str = "uniform", seed: int = 0) -> None:
        self.method = checked_method(method)
        self.seed = int(seed)
        self.step = 0
        #: True once the step is moved by an optimiser instead of by each forward.
        self.followed = False

    @property
    def needs_costs(self) -> bool:
        """Whether probabilities depend on what instances cost."""
        return self.method.startswith("cost")

    def at(
        self,
        step: int,
        instances: Sequence[Instance],
        costs: Mapping[str, int] | None = None,
    ) -> Instance:
        """The instance of a step."""
        weights = self.weights(instances, costs)
        left = fraction(self.seed, step) * sum(weights)
        for instance, weight in zip(instances, weights, strict=True):
            if left < weight:
                return instance
            left -= weight
        # Only rounding leads here.
        return next(i for i, w in zip(reversed(instances), reversed(weights), strict=True) if w)

    def weights(
        self, instances: Sequence[Instance], costs: Mapping[str, int] | None = None
    ) -> list[float]:
        """How likely each instance is, up to a common factor."""
        name, _, number = self.method.partition(":")
        points = len({i.point for i in instances if i.point is not None})
        if not points:
            return [1.0] * len(instances)
        if name == "instances":
            return [1.0] * len(instances)
        if name == "cost":
            assert costs is not None, "costs are needed for this method"
            power = float(number or 1)
            most = max(costs.values())
            return [(max(1, costs[str(i)]) / most) ** power for i in instances]
        full = float(number) if name == "full" else 1 / (points + 1)
        rest = (1 - full) / (len(instances) - 1)
        return [full if str(i) == FULL else rest for i in instances]

    def state_dict(self) -> dict:
        """Seed and step, to be saved with a checkpoint."""
        return {"seed": self.seed, "step": self.step, "method": self.method}

    def load_state_dict(self, state: Mapping) -> None:
        """Restores the result of `state_dict`."""
        self.seed, self.step = int(state["seed"]), int(state["step"])
        self.method = checked_method(state.get("method", self.method))


def fraction(seed: int, step: int) -> float:
    """A number in [0, 1) with 53 random bits that seed and step determine."""
    key = b"sdpoint.torch: instance of a step" + struct.pack("<qq", seed, step)
    bits = int.from_bytes(hashlib.sha256(key).digest()[:8], "little")
    return (bits >> 11) / (1 << 53)


def checked_method(method: str) -> str:
    """The method's name; raises `ValueError` if there is none such."""
    name, colon, number = method.partition(":")
    try:
        value = float(number) if colon else None
    except ValueError:
        value = float("nan")
    known = (
        (name in ("uniform", "instances") and not colon)
        or (name == "cost" and (value is None or abs(value) <= 16))
        or (name == "full" and value is not None and 0 <= value <= 1)
    )
    if not known:
        raise ValueError(
            f"'{method}' is not a way to draw: write uniform, instances, cost, cost:POWER or "
            "full:P with P from 0 to 1"
        )
    return method
