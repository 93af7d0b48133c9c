"""Names of instances: `full`, or `POINT@RATIO` such as `3@0.5` and `stem@0.75`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from .errors import InstanceError

FULL = "full"
STEM = "stem"


@dataclass(frozen=True)
class Instance:
    """One of the networks that share their weights.

    `point` is the name of the point at which the feature map is downsampled, None
    for `full`; `ratio` is the fraction of each side that remains.

    >>> Instance.parse("3@0.50")
    Instance(point='3', ratio=0.5)
    >>> str(Instance("stem", 0.75)), str(Instance())
    ('stem@0.75', 'full')
    """

    point: str | None = None
    ratio: float | None = None

    @staticmethod
    def parse(text: str) -> Instance:
        """Parses a name; raises `InstanceError` if it is not one."""
        if text == FULL:
            return Instance()
        if isinstance(text, Instance):
            return text
        pattern = r"(stem|0|[1-9][0-9]*)@([0-9]*\.?[0-9]+(?:[eE]-?[0-9]+)?)"
        match = re.fullmatch(pattern, str(text))
        if match is None or not 0.0 < float(match[2]) < 1.0:
            raise InstanceError(
                f"'{text}' is not an instance: write full, or POINT@RATIO such as 3@0.5 or "
                "stem@0.75"
            )
        return Instance(match[1], float(match[2]))

    def __str__(self) -> str:
        if self.point is None or self.ratio is None:
            return FULL
        # As the engine writes it: the shortest digits, never an exponent.
        return f"{self.point}@{format(Decimal(repr(self.ratio)), 'f')}"


def checked_ratios(ratios: Iterable[float]) -> tuple[float, ...]:
    """The ratios in ascending order without repetition."""
    if isinstance(ratios, (str, int, float)):
        raise InstanceError(f"ratios is {ratios!r}: give a list of numbers, [{ratios}]")
    found = sorted({float(ratio) for ratio in ratios})
    wrong = [ratio for ratio in found if not 0.0 < ratio < 1.0]
    if wrong or not found:
        named = f"{wrong[0]} is not a ratio" if wrong else "there is no ratio"
        raise InstanceError(f"{named}: give numbers above 0 and below 1, such as (0.5, 0.75)")
    return tuple(found)
