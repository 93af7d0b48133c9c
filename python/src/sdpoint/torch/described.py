"""A PyTorch module from a network's description."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .description import Description, Layer
from .draw import Draws
from .errors import ModelFileError
from .instance import STEM, Instance, checked_ratios
from .network import Adjustable


class Add(nn.Module):
    """The sum of two tensors."""

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Both of the same shape."""
        return left + right


class Concat(nn.Module):
    """Channels one after another."""

    def forward(self, *tensors: Tensor) -> Tensor:
        """All of the same height and width."""
        return torch.cat(tensors, 1)


class Described(nn.Module):
    """The layers of a description as modules under their names."""

    def __init__(self, description: Description) -> None:
        super().__init__()
        self._layers = list(description.layers)
        for layer in description.layers[1:]:
            _place(self, layer.name, _module(layer))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of `[N, C, H, W]` images."""
        values = [x]
        for layer in self._layers[1:]:
            inputs = [values[i] for i in layer.inputs]
            if layer.op == "linear":
                # Of one cell, or flat already.
                inputs = [torch.flatten(inputs[0], 1)]
            values.append(self.get_submodule(layer.name)(*inputs))
        return values[-1]


def build(description: Description, instances: list[str]) -> Adjustable:
    """A wrapped network with random weights, with the points of the description."""
    ratios = {Instance.parse(name).ratio for name in instances} - {None}
    names = [description.layers[layer].name for _, layer in description.points]
    stem = [description.layers[layer] for name, layer in description.points if name == STEM]
    net = Adjustable(
        Described(description), checked_ratios(ratios or {0.5}), names, Draws("uniform")
    )
    net.name = description.name
    known = [point.name for point in net.points]
    if known != [name for name, _ in description.points]:
        where = f" (the stem's is '{stem[0].name}')" if stem else ""
        raise ModelFileError(
            f"the points of {description.name} are {[n for n, _ in description.points]}{where}, "
            "which are not numbered from 0 in the order of the layers"
        )
    return net


def _place(root: nn.Module, name: str, module: nn.Module) -> None:
    """Puts a module under a dotted name."""
    *path, last = name.split(".")
    try:
        for part in path:
            if part not in root._modules:
                root.add_module(part, nn.Module())
            root = root.get_submodule(part)
        root.add_module(last, module)
    except (KeyError, TypeError) as error:
        raise ModelFileError(f"'{name}' cannot be the name of a module: {error}") from error


def _module(layer: Layer) -> nn.Module:
    n = layer.numbers
    match layer.op:
        case "conv":
            return nn.Conv2d(
                n["in_channels"],
                n["out_channels"],
                tuple(n["kernel"]),
                tuple(n["stride"]),
                tuple(n["padding"]),
                groups=n["groups"],
                bias=n["bias"],
            )
        case "batch_norm":
            return nn.BatchNorm2d(n["channels"], n["eps"])
        case "relu":
            return nn.ReLU()
        case "relu6":
            return nn.ReLU6()
        case "max_pool":
            return nn.MaxPool2d(tuple(n["kernel"]), tuple(n["stride"]), tuple(n["padding"]))
        case "avg_pool":
            return nn.AvgPool2d(tuple(n["kernel"]), tuple(n["stride"]), tuple(n["padding"]))
        case "global_avg_pool":
            return nn.AdaptiveAvgPool2d(1)
        case "linear":
            return nn.Linear(n["in_features"], n["out_features"], n["bias"])
        case "add":
            return Add()
        case "concat":
            return Concat()
    raise ModelFileError(f"'{layer.name}' is a '{layer.op}', which sdpoint.torch does not know")
