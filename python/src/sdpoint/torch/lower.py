"""Reads a traced network as the layers that sdpoint's engine has; `layers.py` knows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx, nn

from .description import Description, Layer
from .errors import EngineError
from .layers import (
    BY_NAME,
    FUNCTIONS,
    KNOWN_MISSING,
    METHODS,
    MODULES,
    NoMap,
    Refused,
    computes_as,
    is_norm_act,
    norm_act,
)
from .points import Place
from .trace import Traced

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
            self.put(node, self.emit("input", "input", (), {"channels": channels}), "map")
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
        if is_norm_act(module):
            return norm_act(self, node, module)
        for kind, handler in MODULES:
            if isinstance(module, kind) and computes_as(module, kind):
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

    @staticmethod
    def source(node: fx.Node) -> Any:
        """What a node of one input takes, by position or by name."""
        return node.args[0] if node.args else node.kwargs.get("input")

    def put(self, node: fx.Node, layer: int, form: str, in_place_of: Any = None) -> None:
        """A node stands for what a layer gives, and so does one in whose place it is written."""
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
        source = self.source(node)
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
        source = self.source(node)
        value = self.value(source)
        kind = NAMES.get(op, op)
        layer = self.emit(self.name(node, kind), op, (value.layer,), numbers)
        self.put(node, layer, form or value.form, source if inplace else None)

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
        if self.value(self.source(node)).form not in forms:
            wanted = "a feature map" if "map" in forms else "a flat vector"
            raise Refused(f"takes something else than {wanted}")


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


def _input_channels(root: nn.Module, traced: Traced) -> int:
    for node in traced.nodes:
        if node.op == "call_module":
            module = root.get_submodule(node.target)
            if isinstance(module, nn.Conv2d):
                return module.in_channels
    return 3
