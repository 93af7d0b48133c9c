"""The layers that sdpoint's engine has, as PyTorch's modules and functions call them.

To teach `lower` another layer: a function that emits it, and a line in `MODULES`,
`FUNCTIONS` or `METHODS`. What the engine does not have is in `KNOWN_MISSING` if it is to
be named in other words than its class.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .points import ADDITIONS, RELUS
from .pooling import pair

if TYPE_CHECKING:
    from .lower import Lowering

#: Layers that the engine is to get; everything else is named by its class.
KNOWN_MISSING: dict[type, str] = {
    nn.Hardswish: "is a hard swish, which the engine does not have yet",
    nn.SiLU: "is a SiLU, which the engine does not have yet",
    nn.Sigmoid: "is a sigmoid (squeeze and excitation?), which the engine does not have yet",
    nn.GELU: "is a GELU, which the engine does not have",
    nn.LayerNorm: "is a LayerNorm, which the engine does not have",
    nn.GroupNorm: "is a GroupNorm, which the engine does not have",
    nn.MultiheadAttention: "is attention, which the engine does not have",
}


class Refused(Exception):
    """Why a node is no layer of the engine."""


class NoMap(Refused):
    """A node takes something that is no feature map."""


def convolution(lowering: Lowering, node: fx.Node, module: nn.Conv2d) -> None:
    lowering.once(node, module)
    lowering.expect(node, "map", "cell")
    if pair(module.dilation) != (1, 1):
        raise Refused(f"is a convolution with dilation {module.dilation}: the engine has none")
    if module.padding_mode != "zeros":
        raise Refused(f"pads with '{module.padding_mode}': the engine pads with zeros")
    numbers = {
        "in_channels": module.in_channels,
        "out_channels": module.out_channels,
        "kernel": list(pair(module.kernel_size)),
        "stride": list(pair(module.stride)),
        "padding": _padding(module),
        "groups": module.groups,
        "bias": module.bias is not None,
    }
    lowering.parameters[f"{node.target}.weight"] = module.weight
    if module.bias is not None:
        lowering.parameters[f"{node.target}.bias"] = module.bias
    form = lowering.value(lowering.source(node)).form
    one_cell = form == "cell" and numbers["kernel"] == [1, 1] and numbers["padding"] == [0, 0]
    lowering.unary(node, "conv", "cell" if one_cell else "map", numbers)


def norm(lowering: Lowering, node: fx.Node, module: _BatchNorm) -> None:
    lowering.once(node, module)
    if module.running_mean is None or module.running_var is None:
        raise Refused("keeps no running statistics (track_running_stats=False)")
    channels = module.num_features
    one = torch.ones(channels) if module.weight is None else module.weight
    zero = torch.zeros(channels) if module.bias is None else module.bias
    lowering.parameters[f"{node.target}.weight"] = one
    lowering.parameters[f"{node.target}.bias"] = zero
    lowering.statistics[str(node.target)] = (module.running_mean, module.running_var)
    lowering.unary(node, "batch_norm", numbers={"channels": channels, "eps": module.eps})


def norm_act(lowering: Lowering, node: fx.Node, module: Any) -> None:
    """timm's batch norm with an activation after it."""
    if type(module.drop) is not nn.Identity:
        raise Refused("drops values between norm and activation")
    norm(lowering, node, module)
    if isinstance(module.act, nn.Identity):
        return
    op = {nn.ReLU: "relu", nn.ReLU6: "relu6"}.get(type(module.act))
    if op is None:
        text = KNOWN_MISSING.get(type(module.act), f"ends in {type(module.act).__name__}")
        raise Refused(text)
    form = lowering.value(node).form
    lowering.put(node, lowering.emit(f"{node.target}.act", op, (len(lowering.layers) - 1,)), form)


def linear(lowering: Lowering, node: fx.Node, module: nn.Linear) -> None:
    lowering.once(node, module)
    lowering.expect(node, "flat")
    lowering.parameters[f"{node.target}.weight"] = module.weight
    if module.bias is not None:
        lowering.parameters[f"{node.target}.bias"] = module.bias
    numbers = {
        "in_features": module.in_features,
        "out_features": module.out_features,
        "bias": module.bias is not None,
    }
    lowering.unary(node, "linear", numbers=numbers)


def relu_module(lowering: Lowering, node: fx.Node, module: nn.ReLU) -> None:
    lowering.unary(node, "relu", inplace=module.inplace)


def relu(lowering: Lowering, node: fx.Node) -> None:
    named = getattr(node.target, "__name__", node.target)
    inplace = _argument(node, 1, "inplace", False) or str(named).endswith("_")
    lowering.unary(node, "relu", inplace=bool(inplace))


def relu6_module(lowering: Lowering, node: fx.Node, module: nn.ReLU6) -> None:
    lowering.unary(node, "relu6", inplace=module.inplace)


def relu6(lowering: Lowering, node: fx.Node) -> None:
    lowering.unary(node, "relu6", inplace=bool(_argument(node, 1, "inplace", False)))


def add(lowering: Lowering, node: fx.Node) -> None:
    if node.kwargs.get("alpha", 1) != 1:
        raise Refused("adds a multiple of a tensor, which the engine does not have")
    if not all(isinstance(a, fx.Node) for a in node.args[:2]):
        raise Refused("adds a number, which the engine does not have")
    left, right = lowering.value(node.args[0]), lowering.value(node.args[1])
    layer = lowering.emit(lowering.name(node, "add"), "add", (left.layer, right.layer))
    inplace = node.target is operator.iadd or node.target == "add_"
    lowering.put(node, layer, left.form, node.args[0] if inplace else None)


def concat(lowering: Lowering, node: fx.Node) -> None:
    if _argument(node, 1, "dim", 0) not in (1, -3):
        raise Refused("concatenates along another dimension than channels")
    tensors = node.args[0] if node.args else node.kwargs["tensors"]
    values = [lowering.value(tensor) for tensor in tensors]
    layer = lowering.emit(lowering.name(node, "cat"), "concat", [v.layer for v in values])
    lowering.put(node, layer, values[0].form)


def pool_module(lowering: Lowering, node: fx.Node, module: Any) -> None:
    dilation = getattr(module, "dilation", 1)
    _pool(
        lowering,
        node,
        "max_pool" if isinstance(module, nn.MaxPool2d) else "avg_pool",
        module.kernel_size,
        module.stride,
        module.padding,
        module.ceil_mode,
        dilation,
        getattr(module, "count_include_pad", True),
        getattr(module, "divisor_override", None),
    )


def max_pool(lowering: Lowering, node: fx.Node) -> None:
    _pool(
        lowering,
        node,
        "max_pool",
        _argument(node, 1, "kernel_size"),
        _argument(node, 2, "stride"),
        _argument(node, 3, "padding", 0),
        _argument(node, 5, "ceil_mode", False),
        _argument(node, 4, "dilation", 1),
    )


def avg_pool(lowering: Lowering, node: fx.Node) -> None:
    _pool(
        lowering,
        node,
        "avg_pool",
        _argument(node, 1, "kernel_size"),
        _argument(node, 2, "stride"),
        _argument(node, 3, "padding", 0),
        _argument(node, 4, "ceil_mode", False),
        1,
        _argument(node, 5, "count_include_pad", True),
        _argument(node, 6, "divisor_override"),
    )


def _pool(
    lowering, node, op, kernel, stride, padding, ceil, dilation=1, count_pad=True, divisor=None
) -> None:
    lowering.expect(node, "map", "cell")
    if op == "avg_pool" and _whole(kernel, lowering.source(node)):
        lowering.unary(node, "global_avg_pool", "cell")
        return
    if not all(_fixed(number) for number in (kernel, stride, padding)):
        raise Refused(
            "is a pool whose window depends on the map: nn.AdaptiveAvgPool2d(1) takes the mean "
            "over all places"
        )
    if ceil:
        raise Refused("is a pool with ceil_mode=True, which the engine does not have")
    if pair(dilation) != (1, 1):
        raise Refused("is a pool with dilation, which the engine does not have")
    if divisor is not None or (not count_pad and pair(padding) != (0, 0)):
        raise Refused("averages without its padding, where the engine counts it as zeros")
    numbers = {
        "kernel": list(pair(kernel)),
        "stride": list(pair(kernel if stride is None else stride)),
        "padding": list(pair(padding)),
    }
    lowering.unary(node, op, "map", numbers)


def _fixed(number: Any) -> bool:
    """Whether a number, or one for each side, is known without an image."""
    sides = number if isinstance(number, (tuple, list)) else (number,)
    return not any(isinstance(side, fx.Node) for side in sides)


def _whole(kernel: Any, x: Any) -> bool:
    """Whether a window is the height and width of the map `x` that it is moved over."""
    if isinstance(kernel, (tuple, list)):
        return len(kernel) == 2 and all(
            _side(number, x) in (axis, axis - 4)
            for axis, number in zip((2, 3), kernel, strict=True)
        )
    if not isinstance(kernel, fx.Node) or kernel.target is not operator.getitem:
        return False
    return _is_shape(kernel.args[0], x) and kernel.args[1] in (slice(2, None), slice(-2, None))


def _side(number: Any, x: Any) -> int | None:
    """The axis of `x` whose length a number is."""
    if not isinstance(number, fx.Node):
        return None
    if number.target == "size" and number.args[0] is x and len(number.args) == 2:
        return number.args[1]
    if number.target is operator.getitem and _is_shape(number.args[0], x):
        return number.args[1]
    return None


def _is_shape(node: Any, x: Any) -> bool:
    if not isinstance(node, fx.Node) or node.args[0] is not x:
        return False
    return (node.target == "size" and len(node.args) == 1) or (
        node.target is getattr and node.args[1] == "shape"
    )


def adaptive_module(lowering: Lowering, node: fx.Node, module: nn.AdaptiveAvgPool2d) -> None:
    _adaptive(lowering, node, module.output_size)


def adaptive(lowering: Lowering, node: fx.Node) -> None:
    _adaptive(lowering, node, _argument(node, 1, "output_size"))


def _adaptive(lowering: Lowering, node: fx.Node, size: Any) -> None:
    if size not in (1, (1, 1), [1, 1]):
        raise Refused(
            f"is an adaptive average pool to {size}: the engine has the mean over all places, "
            "nn.AdaptiveAvgPool2d(1)"
        )
    lowering.expect(node, "map", "cell")
    lowering.unary(node, "global_avg_pool", "cell")


def mean(lowering: Lowering, node: fx.Node) -> None:
    dims = _argument(node, 1, "dim")
    places = sorted(d % 4 for d in dims) if isinstance(dims, (tuple, list)) else None
    if places != [2, 3]:
        raise Refused("averages over other dimensions than height and width")
    lowering.expect(node, "map", "cell")
    form = "cell" if _argument(node, 2, "keepdim", False) else "flat"
    lowering.unary(node, "global_avg_pool", form)


def flatten(lowering: Lowering, node: fx.Node) -> None:
    if lowering.value(lowering.source(node)).form == "map":
        raise Refused(
            "flattens a feature map of many cells, whose size differs between instances: put "
            "nn.AdaptiveAvgPool2d(1) before the classifier"
        )
    lowering.same(node, "flat")


def flatten_module(lowering: Lowering, node: fx.Node, module: nn.Flatten) -> None:
    if (module.start_dim, module.end_dim) not in ((1, -1), (1, 3)):
        raise Refused("flattens other dimensions than channels, height and width")
    flatten(lowering, node)


def flatten_call(lowering: Lowering, node: fx.Node) -> None:
    if _argument(node, 1, "start_dim", 0) != 1 or _argument(node, 2, "end_dim", -1) not in (
        -1,
        3,
    ):
        raise Refused("flattens other dimensions than channels, height and width")
    flatten(lowering, node)


def view(lowering: Lowering, node: fx.Node) -> None:
    shape = node.args[1:]
    shape = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    if len(shape) != 2:
        raise Refused("reshapes feature maps, which the engine does not have")
    flatten(lowering, node)


def dropout(lowering: Lowering, node: fx.Node) -> None:
    if _argument(node, 2, "training", True):
        raise Refused("drops values in evaluation mode too")
    lowering.same(node)


def stochastic_depth(lowering: Lowering, node: fx.Node) -> None:
    if _argument(node, 3, "training", True):
        raise Refused("skips branches in evaluation mode too")
    lowering.same(node)


def nothing(lowering: Lowering, node: fx.Node, module: nn.Module | None = None) -> None:
    lowering.same(node)


def squeeze(lowering: Lowering, node: fx.Node) -> None:
    raise Refused("squeezes maps: torch.flatten(x, 1) makes vectors of pooled ones")


def number(lowering: Lowering, node: fx.Node) -> None:
    """Batch sizes and the like, which views use; nothing to compute."""


def _padding(module: nn.Conv2d) -> list[int]:
    if module.padding == "valid":
        return [0, 0]
    if module.padding == "same":
        if any(side % 2 == 0 for side in pair(module.kernel_size)):
            raise Refused("pads one side more than the other ('same' with an even kernel)")
        return [side // 2 for side in pair(module.kernel_size)]
    return list(pair(module.padding))


def _argument(node: fx.Node, place: int, name: str, default: Any = None) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def computes_as(module: nn.Module, kind: type) -> bool:
    """Whether a subclass still computes what its base does."""
    same = type(module).forward is kind.forward
    if kind is nn.Conv2d:
        same &= type(module)._conv_forward is nn.Conv2d._conv_forward
    if kind is _BatchNorm:
        same = type(module).forward in (_BatchNorm.forward, nn.SyncBatchNorm.forward)
    return same


def is_norm_act(module: nn.Module) -> bool:
    """Whether it is timm's batch norm with an activation; timm need not be there."""
    kind = getattr(sys.modules.get("timm.layers"), "BatchNormAct2d", None)
    return kind is not None and type(module) is kind


#: Modules by class, in order; a subclass with another `forward` is none of them.
MODULES: list[tuple[type, Callable]] = [
    (nn.Conv2d, convolution),
    (_BatchNorm, norm),
    (nn.Linear, linear),
    (nn.ReLU, relu_module),
    (nn.ReLU6, relu6_module),
    (nn.MaxPool2d, pool_module),
    (nn.AvgPool2d, pool_module),
    (nn.AdaptiveAvgPool2d, adaptive_module),
    (nn.Flatten, flatten_module),
    (nn.Identity, nothing),
    (nn.Dropout, nothing),
    (nn.Dropout2d, nothing),
]

FUNCTIONS: dict[Any, Callable] = {
    **dict.fromkeys(ADDITIONS, add),
    **dict.fromkeys(RELUS, relu),
    F.relu6: relu6,
    torch.cat: concat,
    torch.concat: concat,
    torch.flatten: flatten_call,
    torch.mean: mean,
    F.max_pool2d: max_pool,
    torch.max_pool2d: max_pool,
    F.avg_pool2d: avg_pool,
    F.adaptive_avg_pool2d: adaptive,
    F.dropout: dropout,
    F.dropout2d: dropout,
    torch.squeeze: squeeze,
    operator.getitem: number,
    getattr: number,
}

#: Functions of packages that need not be there.
BY_NAME: dict[str, Callable] = {"stochastic_depth": stochastic_depth}

METHODS: dict[str, Callable] = {
    "add": add,
    "add_": add,
    "relu": relu,
    "relu_": relu,
    "mean": mean,
    "flatten": flatten_call,
    "view": view,
    "reshape": view,
    "contiguous": nothing,
    "squeeze": squeeze,
    "size": number,
    "dim": number,
}
