"""Reads a traced network as the layers that sdpoint's engine has.

To teach it another layer: a function on `Lowering` that emits the layer, and a
line in `MODULES`, `FUNCTIONS` or `METHODS`. What the engine does not have is in
`KNOWN_MISSING` if it is to be named in other words than its class.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .description import Description, Layer
from .errors import EngineError
from .points import ADDITIONS, RELUS, Place
from .pooling import pair
from .trace import Traced

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


#: What layers of functions are called, as in sdpoint's own networks.
NAMES = {"global_avg_pool": "avgpool", "avg_pool": "avgpool", "max_pool": "maxpool"}


@dataclass
class Lowered:
    """A network as data, and the tensors of its parameters and of `full`.

    `tensors` has them under the names of the model file, in its order: those of
    layers first, then the statistics of `full`.
    """

    description: Description
    parameters: dict[str, Tensor] = field(default_factory=dict)
    statistics: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


@dataclass
class Value:
    """A tensor of the graph: the layer that gives it, and its form.

    Forms are "map" (height and width as they come), "cell" (one cell, still four
    dimensions) and "flat" (two dimensions).
    """

    layer: int
    form: str


class Refused(Exception):
    """Why a node is no layer of the engine."""


class NoMap(Refused):
    """A node takes something that is no feature map."""


def lower(root: nn.Module, traced: Traced, places: Sequence[Place], name: str) -> Lowered:
    """The network's description; raises `EngineError` with every layer that is none."""
    lowering = Lowering(root, traced)
    problems = lowering.run()
    if problems:
        raise EngineError(_report(name, problems))
    points = [(place.point.name, lowering.layer_of[place.node]) for place in places]
    layers = [
        Layer(unique, layer.op, layer.inputs, layer.numbers)
        for unique, layer in zip(_unique_names(lowering.layers), lowering.layers, strict=True)
    ]
    return Lowered(Description(name, layers, points), lowering.parameters, lowering.statistics)


#: More kinds of problems than anyone reads at once, and more paths of one kind.
SHOWN_KINDS, SHOWN_PATHS = 8, 3


def _report(name: str, problems: Sequence[tuple[str, str]]) -> str:
    """What is wrong, a line for each kind with the modules that have it."""
    kinds: dict[str, list[str]] = {}
    for path, problem in dict.fromkeys(problems):
        kinds.setdefault(problem, []).append(path)
    lines = []
    for problem, paths in list(kinds.items())[:SHOWN_KINDS]:
        shown = ", ".join(f"'{path}'" for path in paths[:SHOWN_PATHS])
        more = f" and {len(paths) - SHOWN_PATHS} more" if len(paths) > SHOWN_PATHS else ""
        lines.append(f"  {shown}{more}: {problem}")
    if len(kinds) > SHOWN_KINDS:
        lines.append(f"  and problems of {len(kinds) - SHOWN_KINDS} other kinds")
    return (
        f"sdpoint's engine cannot run {name}:\n" + "\n".join(lines) + "\nChange these modules, or "
        "train all the same with wrap(..., engine=False): such a network cannot be saved as a "
        "model file"
    )


class Lowering:
    """The state of one reading."""

    def __init__(self, root: nn.Module, traced: Traced) -> None:
        self.root, self.traced = root, traced
        self.layers: list[Layer] = []
        self.parameters: dict[str, Tensor] = {}
        self.statistics: dict[str, tuple[Tensor, Tensor]] = {}
        # Nodes whose tensors are one in memory share a value, which an operation
        # in place replaces for all of them.
        self.group: dict[fx.Node, int] = {}
        self.values: list[Value] = []
        self.layer_of: dict[fx.Node, int] = {}
        self.called: set[int] = set()
        self.refused: set[fx.Node] = set()

    def run(self) -> list[tuple[str, str]]:
        """Reads all nodes; returns the paths of modules and what is wrong with them."""
        problems = []
        for node in self.traced.nodes:
            try:
                self._node(node)
            except Refused as refused:
                self.refused.add(node)
                if isinstance(refused, NoMap) and self._follows_refused(node):
                    continue
                where = node.target if node.op == "call_module" else self._owner(node)
                problems.append((str(where), str(refused)))
                # Go on as if it had been none, to name all of them.
                source = next((a for a in node.all_input_nodes if a in self.group), None)
                if source is not None:
                    self.group[node] = self.group[source]
                    self.layer_of[node] = self.value(source).layer
        return problems

    def _follows_refused(self, node: fx.Node) -> bool:
        """Whether all that is wrong with a node is that one before it was refused."""
        sources = [source for source in node.all_input_nodes if source not in self.group]
        while sources:
            source = sources.pop()
            if source in self.refused:
                return True
            if source not in self.group:
                # Such as one of a tuple's tensors: `number` passes over taking it out.
                sources += source.all_input_nodes
        return False

    def _owner(self, node: fx.Node) -> str:
        return self.traced.owners.get(node, "") or type(self.root).__name__

    def _node(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            channels = _input_channels(self.root, self.traced)
            self._set(node, self.emit("input", "input", (), {"channels": channels}), "map")
        elif node.op == "output":
            value = self.value(node.args[0])
            if value.form != "flat":
                raise Refused("does not end in a linear layer: the engine's networks give logits")
        elif node.op == "call_module":
            self._module(node)
        elif node.op == "call_function":
            name = getattr(node.target, "__name__", str(node.target))
            self._call(node, FUNCTIONS.get(node.target) or BY_NAME.get(name), name)
        elif node.op == "call_method":
            self._call(node, METHODS.get(node.target), f"Tensor.{node.target}")

    def _call(self, node: fx.Node, handler: Callable | None, name: str) -> None:
        if handler is None:
            raise Refused(f"calls {name}, which the engine does not have")
        handler(self, node)

    def _module(self, node: fx.Node) -> None:
        module = self.root.get_submodule(node.target)
        if node.target in self.traced.opaque:
            reason = self.traced.opaque[node.target]
            raise Refused(f"is a {type(module).__name__} that torch.fx cannot look into: {reason}")
        if "forward" in module.__dict__:
            raise Refused("has a forward of its own, put in place of its class's")
        if _is_norm_act(module):
            return self.norm_act(node, module)
        for kind, handler in MODULES:
            if isinstance(module, kind) and _computes_as(module, kind):
                return handler(self, node, module)
        for kind, text in KNOWN_MISSING.items():
            if isinstance(module, kind):
                raise Refused(text)
        raise Refused(f"is a {type(module).__name__}, which the engine does not have")

    # Values

    def value(self, node: Any) -> Value:
        """The tensor that a node stands for now."""
        if not isinstance(node, fx.Node) or node not in self.group:
            raise NoMap("takes something that is no feature map")
        return self.values[self.group[node]]

    def _set(self, node: fx.Node, layer: int, form: str, in_place_of: Any = None) -> None:
        value = Value(layer, form)
        if in_place_of is not None:
            self.group[node] = self.group[in_place_of]
            self.values[self.group[node]] = value
        else:
            self.group[node] = len(self.values)
            self.values.append(value)
        self.layer_of[node] = layer

    def same(self, node: fx.Node, form: str | None = None) -> None:
        """The node gives its input as it is, maybe in another form."""
        source = node.args[0]
        value = self.value(source)
        if form is None or form == value.form:
            self.group[node] = self.group[source]
        else:
            self.group[node] = len(self.values)
            self.values.append(Value(value.layer, form))
        self.layer_of[node] = value.layer

    def emit(self, name: str, op: str, inputs: Sequence[int], numbers: dict | None = None) -> int:
        """Adds a layer and returns its place."""
        self.layers.append(Layer(name, op, tuple(inputs), numbers or {}))
        return len(self.layers) - 1

    def name(self, node: fx.Node, kind: str) -> str:
        """A layer's name: its module's path, or its owner's and what it does."""
        if node.op == "call_module":
            return str(node.target)
        owner = self.traced.owners.get(node, "")
        return f"{owner}.{kind}" if owner else kind

    def unary(self, node: fx.Node, op: str, form: str | None = None, numbers=None, inplace=False):
        """A layer of one input."""
        source = node.args[0]
        value = self.value(source)
        kind = NAMES.get(op, op)
        layer = self.emit(self.name(node, kind), op, (value.layer,), numbers)
        self._set(node, layer, form or value.form, source if inplace else None)

    def once(self, node: fx.Node, module: nn.Module) -> None:
        """Modules with parameters are called once."""
        if id(module) in self.called:
            raise Refused(
                "is shared, called more than once: a model file has one layer a module. Give each "
                "place a module of its own"
            )
        self.called.add(id(module))

    def expect(self, node: fx.Node, *forms: str) -> None:
        """Checks the form of a node's input."""
        if self.value(node.args[0]).form not in forms:
            wanted = "a feature map" if "map" in forms else "a flat vector"
            raise Refused(f"takes something else than {wanted}")

    # Layers

    def convolution(self, node: fx.Node, module: nn.Conv2d) -> None:
        self.once(node, module)
        self.expect(node, "map", "cell")
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
        self.parameters[f"{node.target}.weight"] = module.weight
        if module.bias is not None:
            self.parameters[f"{node.target}.bias"] = module.bias
        form = self.value(node.args[0]).form
        one_cell = form == "cell" and numbers["kernel"] == [1, 1] and numbers["padding"] == [0, 0]
        self.unary(node, "conv", "cell" if one_cell else "map", numbers)

    def norm(self, node: fx.Node, module: _BatchNorm) -> None:
        self.once(node, module)
        if module.running_mean is None or module.running_var is None:
            raise Refused("keeps no running statistics (track_running_stats=False)")
        channels = module.num_features
        one = torch.ones(channels) if module.weight is None else module.weight
        zero = torch.zeros(channels) if module.bias is None else module.bias
        self.parameters[f"{node.target}.weight"] = one
        self.parameters[f"{node.target}.bias"] = zero
        self.statistics[str(node.target)] = (module.running_mean, module.running_var)
        self.unary(node, "batch_norm", numbers={"channels": channels, "eps": module.eps})

    def norm_act(self, node: fx.Node, module: Any) -> None:
        """timm's batch norm with an activation after it."""
        if type(module.drop) is not nn.Identity:
            raise Refused("drops values between norm and activation")
        self.norm(node, module)
        if isinstance(module.act, nn.Identity):
            return
        op = {nn.ReLU: "relu", nn.ReLU6: "relu6"}.get(type(module.act))
        if op is None:
            text = KNOWN_MISSING.get(type(module.act), f"ends in {type(module.act).__name__}")
            raise Refused(text)
        form = self.value(node).form
        self._set(node, self.emit(f"{node.target}.act", op, (len(self.layers) - 1,)), form)

    def linear(self, node: fx.Node, module: nn.Linear) -> None:
        self.once(node, module)
        self.expect(node, "flat")
        self.parameters[f"{node.target}.weight"] = module.weight
        if module.bias is not None:
            self.parameters[f"{node.target}.bias"] = module.bias
        numbers = {
            "in_features": module.in_features,
            "out_features": module.out_features,
            "bias": module.bias is not None,
        }
        self.unary(node, "linear", numbers=numbers)

    def relu_module(self, node: fx.Node, module: nn.ReLU) -> None:
        self.unary(node, "relu", inplace=module.inplace)

    def relu(self, node: fx.Node) -> None:
        named = getattr(node.target, "__name__", node.target)
        inplace = _argument(node, 1, "inplace", False) or str(named).endswith("_")
        self.unary(node, "relu", inplace=bool(inplace))

    def relu6_module(self, node: fx.Node, module: nn.ReLU6) -> None:
        self.unary(node, "relu6", inplace=module.inplace)

    def relu6(self, node: fx.Node) -> None:
        self.unary(node, "relu6", inplace=bool(_argument(node, 1, "inplace", False)))

    def add(self, node: fx.Node) -> None:
        if node.kwargs.get("alpha", 1) != 1:
            raise Refused("adds a multiple of a tensor, which the engine does not have")
        if not all(isinstance(a, fx.Node) for a in node.args[:2]):
            raise Refused("adds a number, which the engine does not have")
        left, right = self.value(node.args[0]), self.value(node.args[1])
        layer = self.emit(self.name(node, "add"), "add", (left.layer, right.layer))
        inplace = node.target is operator.iadd or node.target == "add_"
        self._set(node, layer, left.form, node.args[0] if inplace else None)

    def concat(self, node: fx.Node) -> None:
        if _argument(node, 1, "dim", 0) not in (1, -3):
            raise Refused("concatenates along another dimension than channels")
        tensors = node.args[0] if node.args else node.kwargs["tensors"]
        values = [self.value(tensor) for tensor in tensors]
        layer = self.emit(self.name(node, "cat"), "concat", [v.layer for v in values])
        self._set(node, layer, values[0].form)

    def pool_module(self, node: fx.Node, module: Any) -> None:
        dilation = getattr(module, "dilation", 1)
        self._pool(
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

    def max_pool(self, node: fx.Node) -> None:
        self._pool(
            node,
            "max_pool",
            _argument(node, 1, "kernel_size"),
            _argument(node, 2, "stride"),
            _argument(node, 3, "padding", 0),
            _argument(node, 5, "ceil_mode", False),
            _argument(node, 4, "dilation", 1),
        )

    def avg_pool(self, node: fx.Node) -> None:
        self._pool(
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
        self, node, op, kernel, stride, padding, ceil, dilation=1, count_pad=True, divisor=None
    ) -> None:
        self.expect(node, "map", "cell")
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
        self.unary(node, op, "map", numbers)

    def adaptive_module(self, node: fx.Node, module: nn.AdaptiveAvgPool2d) -> None:
        self._adaptive(node, module.output_size)

    def adaptive(self, node: fx.Node) -> None:
        self._adaptive(node, _argument(node, 1, "output_size"))

    def _adaptive(self, node: fx.Node, size: Any) -> None:
        if size not in (1, (1, 1), [1, 1]):
            raise Refused(
                f"is an adaptive average pool to {size}: the engine has the mean over all places, "
                "nn.AdaptiveAvgPool2d(1)"
            )
        self.expect(node, "map", "cell")
        self.unary(node, "global_avg_pool", "cell")

    def mean(self, node: fx.Node) -> None:
        dims = _argument(node, 1, "dim")
        places = sorted(d % 4 for d in dims) if isinstance(dims, (tuple, list)) else None
        if places != [2, 3]:
            raise Refused("averages over other dimensions than height and width")
        self.expect(node, "map", "cell")
        form = "cell" if _argument(node, 2, "keepdim", False) else "flat"
        self.unary(node, "global_avg_pool", form)

    def flatten(self, node: fx.Node) -> None:
        if self.value(node.args[0]).form == "map":
            raise Refused(
                "flattens a feature map of many cells, whose size differs between instances: put "
                "nn.AdaptiveAvgPool2d(1) before the classifier"
            )
        self.same(node, "flat")

    def flatten_module(self, node: fx.Node, module: nn.Flatten) -> None:
        if (module.start_dim, module.end_dim) not in ((1, -1), (1, 3)):
            raise Refused("flattens other dimensions than channels, height and width")
        self.flatten(node)

    def flatten_call(self, node: fx.Node) -> None:
        if _argument(node, 1, "start_dim", 0) != 1 or _argument(node, 2, "end_dim", -1) not in (
            -1,
            3,
        ):
            raise Refused("flattens other dimensions than channels, height and width")
        self.flatten(node)

    def view(self, node: fx.Node) -> None:
        shape = node.args[1:]
        shape = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        if len(shape) != 2:
            raise Refused("reshapes feature maps, which the engine does not have")
        self.flatten(node)

    def dropout(self, node: fx.Node) -> None:
        if _argument(node, 2, "training", True):
            raise Refused("drops values in evaluation mode too")
        self.same(node)

    def stochastic_depth(self, node: fx.Node) -> None:
        if _argument(node, 3, "training", True):
            raise Refused("skips branches in evaluation mode too")
        self.same(node)

    def nothing(self, node: fx.Node, module: nn.Module | None = None) -> None:
        self.same(node)

    def number(self, node: fx.Node) -> None:
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


def _input_channels(root: nn.Module, traced: Traced) -> int:
    for node in traced.nodes:
        if node.op == "call_module":
            module = root.get_submodule(node.target)
            if isinstance(module, nn.Conv2d):
                return module.in_channels
    return 3


def _computes_as(module: nn.Module, kind: type) -> bool:
    """Whether a subclass still computes what its base does."""
    same = type(module).forward is kind.forward
    if kind is nn.Conv2d:
        same &= type(module)._conv_forward is nn.Conv2d._conv_forward
    if kind is _BatchNorm:
        same = type(module).forward in (_BatchNorm.forward, nn.SyncBatchNorm.forward)
    return same


def _is_norm_act(module: nn.Module) -> bool:
    """Whether it is timm's batch norm with an activation; timm need not be there."""
    kind = getattr(sys.modules.get("timm.layers"), "BatchNormAct2d", None)
    return kind is not None and type(module) is kind


#: Modules by class, in order; a subclass with another `forward` is none of them.
MODULES: list[tuple[type, Callable]] = [
    (nn.Conv2d, Lowering.convolution),
    (_BatchNorm, Lowering.norm),
    (nn.Linear, Lowering.linear),
    (nn.ReLU, Lowering.relu_module),
    (nn.ReLU6, Lowering.relu6_module),
    (nn.MaxPool2d, Lowering.pool_module),
    (nn.AvgPool2d, Lowering.pool_module),
    (nn.AdaptiveAvgPool2d, Lowering.adaptive_module),
    (nn.Flatten, Lowering.flatten_module),
    (nn.Identity, Lowering.nothing),
    (nn.Dropout, Lowering.nothing),
    (nn.Dropout2d, Lowering.nothing),
]

FUNCTIONS: dict[Any, Callable] = {
    **dict.fromkeys(ADDITIONS, Lowering.add),
    **dict.fromkeys(RELUS, Lowering.relu),
    F.relu6: Lowering.relu6,
    torch.cat: Lowering.concat,
    torch.concat: Lowering.concat,
    torch.flatten: Lowering.flatten_call,
    torch.mean: Lowering.mean,
    F.max_pool2d: Lowering.max_pool,
    torch.max_pool2d: Lowering.max_pool,
    F.avg_pool2d: Lowering.avg_pool,
    F.adaptive_avg_pool2d: Lowering.adaptive,
    F.dropout: Lowering.dropout,
    F.dropout2d: Lowering.dropout,
    operator.getitem: Lowering.number,
    getattr: Lowering.number,
}

#: Functions of packages that need not be there.
BY_NAME: dict[str, Callable] = {"stochastic_depth": Lowering.stochastic_depth}

METHODS: dict[str, Callable] = {
    "add": Lowering.add,
    "add_": Lowering.add,
    "relu": Lowering.relu,
    "relu_": Lowering.relu,
    "mean": Lowering.mean,
    "flatten": Lowering.flatten_call,
    "view": Lowering.view,
    "reshape": Lowering.view,
    "contiguous": Lowering.nothing,
    "size": Lowering.number,
    "dim": Lowering.number,
}


def _unique_names(layers: Sequence[Layer]) -> list[str]:
    """Names without repetition: where several are alike, all but the last get numbers.

    A block that calls one ReLU three times has `relu1`, `relu2` and `relu`, as
    sdpoint's own networks have.
    """
    left: dict[str, int] = {}
    for layer in layers:
        left[layer.name] = left.get(layer.name, 0) + 1
    taken, numbers, names = set(left), dict.fromkeys(left, 0), []
    for layer in layers:
        left[layer.name] -= 1
        name = layer.name
        while left[layer.name] and (name in taken):
            numbers[layer.name] += 1
            name = f"{layer.name}{numbers[layer.name]}"
        taken.add(name)
        names.append(name)
    return names
