"""Which instance a training step runs.

A draw is a function of the seed and the step alone, so that all ranks draw the
same and a resumed run draws what the uninterrupted one would have drawn.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence

from .errors import InstanceError
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
    - `"full:P"`: `full` with probability P, otherwise a random point and ratio;
    - `"menu:INSTANCE=P,..."`: these instances with these probabilities, the others that are
      cheaper than `full` equally with what is left.
    """

    def __init__(self, method: str = "uniform", seed: int = 0) -> None:
        self.method = method
        self.seed = int(seed)
        self.step = 0
        #: True once the step is moved by an optimiser instead of by each forward.
        self.followed = False

    @property
    def method(self) -> str:
        """The distribution; setting it raises `ValueError` if there is none such."""
        return self._method

    @method.setter
    def method(self, method: str) -> None:
        self._method = checked_method(method)

    @property
    def needs_costs(self) -> bool:
        """Whether probabilities depend on what instances cost."""
        return self.method.startswith(("cost", "menu"))

    @property
    def draw_only_full(self) -> bool:
        """Whether no other instance than `full` is ever drawn."""
        name, _, text = self.method.partition(":")
        if name == "menu":
            return menu_of(text).get(FULL, 0.0) >= 1
        return name == "full" and float(text) == 1

    def at(
        self,
        step: int,
        instances: Sequence[Instance],
        costs: Mapping[str, int] | None = None,
    ) -> Instance:
        """The instance of a step."""
        return self._pick(instances, self.weights(instances, costs), step)

    def branches_at(
        self,
        step: int,
        count: int,
        instances: Sequence[Instance],
        costs: Mapping[str, int] | None = None,
    ) -> list[Instance]:
        """The instances other than `full` of a step's branches; none if there are no others."""
        weights = self.weights(instances, costs)
        others = [0.0 if str(i) == FULL else w for i, w in zip(instances, weights, strict=True)]
        if not any(others):
            return []
        return [self._pick(instances, others, step, part) for part in range(count)]

    def _pick(
        self, instances: Sequence[Instance], weights: Sequence[float], step: int, part: int = 0
    ) -> Instance:
        left = fraction(self.seed, step, part) * sum(weights)
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
        if name == "menu":
            assert costs is not None, "costs are needed for this method"
            return _of_menu(menu_of(number), instances, costs)
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
        self.method = state.get("method", self.method)


#: The ratios of `sdpoint+`.
PLUS_RATIOS = (0.5, 0.6, 0.75)


def early_points(instances: Sequence[Instance]) -> str:
    """The draw of `sdpoint+`: four fifths of the draws are `full`, instances of the first point
    and, at the largest ratio, of the second, which save most for a given loss of accuracy.

    >>> early_points([Instance.parse(i) for i in ("full", "0@0.5", "0@0.75", "1@0.5", "1@0.75")])
    'menu:full=0.2,0@0.5=0.2,0@0.75=0.2,1@0.75=0.2'
    """
    names = list(dict.fromkeys(i.point for i in instances if i.point is not None))
    chosen = [Instance(), *(i for i in instances if names and i.point == names[0])]
    if len(names) > 1:
        chosen.append(max((i for i in instances if i.point == names[1]), key=lambda i: i.ratio))
    each = 0.8 / len(chosen)
    return "menu:" + ",".join(f"{instance}={each!r}" for instance in chosen)


def fraction(seed: int, step: int, part: int = 0) -> float:
    """A number in [0, 1) with 53 random bits that seed, step and part of the batch determine."""
    key = b"sdpoint.torch: instance of a step" + struct.pack("<qq", seed, step)
    if part:
        key += struct.pack("<q", part)
    bits = int.from_bytes(hashlib.sha256(key).digest()[:8], "little")
    return (bits >> 11) / (1 << 53)


def menu_of(text: str) -> dict[str, float]:
    """The instances of a menu with their probabilities; raises `ValueError` if it is none.

    >>> menu_of("0@0.5=0.4,full=0.2")
    {'0@0.5': 0.4, 'full': 0.2}
    """
    menu: dict[str, float] = {}
    for entry in text.split(","):
        name, equals, number = entry.partition("=")
        try:
            instance, probability = str(Instance.parse(name.strip())), float(number)
        except (InstanceError, ValueError) as error:
            raise ValueError(f"'{entry}' in the menu is not INSTANCE=PROBABILITY") from error
        if not equals or not 0 <= probability <= 1:
            raise ValueError(f"the probability of {instance} must be from 0 to 1")
        if instance in menu:
            raise ValueError(f"{instance} is in the menu twice")
        menu[instance] = probability
    if not any(menu.values()):
        raise ValueError("every instance in the menu has the probability 0")
    if sum(menu.values()) > 1 + 1e-9:
        raise ValueError(f"the menu's probabilities add up to {sum(menu.values())}, more than 1")
    return menu


def check_menu(method: str, instances: Sequence[Instance]) -> None:
    """Raises `InstanceError` if a method is a menu with an instance that is not there."""
    name, _, text = method.partition(":")
    names = [str(instance) for instance in instances]
    unknown = [i for i in menu_of(text) if i not in names] if name == "menu" else []
    if unknown:
        raise InstanceError(f"the menu has {unknown[0]}, which the network with its ratios has not")


def _of_menu(
    menu: Mapping[str, float], instances: Sequence[Instance], costs: Mapping[str, int]
) -> list[float]:
    names = [str(instance) for instance in instances]
    others = [name for name in names if name not in menu and costs[name] < costs[FULL]]
    rest = max(0.0, 1 - sum(menu.values())) / max(1, len(others))
    return [menu.get(name, rest if name in others else 0.0) for name in names]


def checked_method(method: str) -> str:
    """The method's name; raises `ValueError` if there is none such."""
    if not isinstance(method, str):
        raise TypeError(f"draw is {method!r}; it is a text such as 'uniform'")
    name, colon, number = method.partition(":")
    if name == "menu":
        menu_of(number)
        return method
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
            f"'{method}' is not a way to draw: write uniform, instances, cost, cost:POWER, "
            "full:P with P from 0 to 1, or menu:INSTANCE=P,..."
        )
    return method
