"""A network as data, as model files have it: layers, sizes, multiply-accumulates.

`docs/model-file.md` is the specification.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .errors import InstanceError
from .instance import STEM, Instance
from .pooling import kept, windows


@dataclass(frozen=True)
class Layer:
    """One computation: its op as in the file, and the places of its inputs.

    `op` is a name such as "conv", and `numbers` what belongs to it, such as
    `{"kernel": [3, 3], ...}`; empty for ops without numbers.
    """

    name: str
    op: str
    inputs: tuple[int, ...]
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As it stands in a model file."""
        op = {self.op: dict(self.numbers)} if self.numbers else self.op
        return {"name": self.name, "op": op, "inputs": list(self.inputs)}

    @staticmethod
    def of_json(value: Mapping[str, Any]) -> Layer:
        """From a model file."""
        op = value["op"]
        name, numbers = (op, {}) if isinstance(op, str) else next(iter(op.items()))
        return Layer(value["name"], name, tuple(value["inputs"]), numbers)


@dataclass(frozen=True)
class Description:
    """A network: layers in topological order, and (point, layer) in order."""

    name: str
    layers: Sequence[Layer]
    points: Sequence[tuple[str, int]]

    def as_json(self) -> dict[str, Any]:
        """As it stands in a model file."""
        return {
            "name": self.name,
            "layers": [layer.as_json() for layer in self.layers],
            "points": [{"id": name, "layer": layer} for name, layer in self.points],
        }

    @staticmethod
    def of_json(value: Mapping[str, Any]) -> Description:
        """From a model file."""
        return Description(
            value["name"],
            [Layer.of_json(layer) for layer in value["layers"]],
            [(point["id"], point["layer"]) for point in value["points"]],
        )

    def features(self) -> list[str]:
        """The named features of the format that the layers have."""
        return ["relu6"] if any(layer.op == "relu6" for layer in self.layers) else []

    def norms_behind(self, instance: Instance) -> list[str]:
        """Names of the batch norms behind an instance's point; all of them for `full`."""
        place = -1 if instance.point is None else dict(self.points)[instance.point]
        norms = [(i, layer) for i, layer in enumerate(self.layers) if layer.op == "batch_norm"]
        return [layer.name for i, layer in norms if i > place]

    def own_parameters(self, instance: Instance) -> list[tuple[str, str]]:
        """Modules and names of the parameters that an instance may have of its own."""
        own = [(norm, name) for norm in self.norms_behind(instance) for name in ("weight", "bias")]
        classifier = self.layers[-1]
        if classifier.numbers.get("bias"):
            own.append((classifier.name, "bias"))
        return own

    def macs(self, size: tuple[int, int], instance: Instance) -> int:
        """Multiply-accumulates for one image of (height, width)."""
        sizes, total = self.sizes(size, instance), 0
        for layer, (computed, _) in zip(self.layers, sizes, strict=True):
            n = layer.numbers
            if layer.op == "conv":
                window = n["in_channels"] // n["groups"] * n["kernel"][0] * n["kernel"][1]
                total += computed[0] * computed[1] * n["out_channels"] * window
            elif layer.op == "linear":
                total += n["in_features"] * n["out_features"]
        return total

    def sizes(
        self, size: tuple[int, int], instance: Instance
    ) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """Height and width that each layer computes, and that it passes on."""
        down = None if instance.point is None else dict(self.points)[instance.point]
        sizes: list[tuple[tuple[int, int], tuple[int, int]]] = []
        for place, layer in enumerate(self.layers):
            before = sizes[layer.inputs[0]][1] if layer.inputs else size
            computed = _computed(layer, before)
            if min(computed) < 1:
                raise InstanceError(
                    f"images of {size[0]}x{size[1]} are too small for {self.name}: nothing is left "
                    f"at '{layer.name}' in {instance}"
                )
            passed = computed
            if place == down and instance.ratio is not None:
                passed = tuple(kept(side, instance.ratio) for side in computed)
                computed = passed if instance.point == STEM else computed
            sizes.append((computed, passed))
        return sizes


def _computed(layer: Layer, before: tuple[int, int]) -> tuple[int, int]:
    if layer.op in ("conv", "max_pool", "avg_pool"):
        n = layer.numbers
        height, width = (
            windows(before[axis], n["kernel"][axis], n["stride"][axis], n["padding"][axis])
            for axis in (0, 1)
        )
        return height, width
    if layer.op in ("global_avg_pool", "linear"):
        return 1, 1
    return before
