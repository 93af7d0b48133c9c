"""A traced network as a chain of stages, cut at its points.

Each stage is a function of its modules and one tensor. Modules are looked up when it
runs, so that what is replaced in the tree later (by SyncBatchNorm, say) is what runs.
Stages of one form, such as the blocks of a ResNet's stage behind the first, share their
function, which is compiled once for all of them; others have code of their own.
"""

from __future__ import annotations

import itertools
import linecache
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.graph import PythonCode
from torch.nn.modules.batchnorm import _BatchNorm

from .errors import WrapError
from .points import Place, Point, find
from .pooling import PoolWindow, downsample, downsample_stem
from .trace import Traced, trace

_NUMBERS = itertools.count()

#: A stage's computation, of its modules and parameters and the tensor that goes in.
Function = Callable[[tuple[Any, ...], Tensor], Tensor]


class Stage:
    """What lies between two points: one tensor in, one tensor out.

    `run` takes the modules and parameters at `paths`, and the tensor. `point` is the one
    behind it, or None for the last. With `pool`, the stage is the stem's max pool, in whose
    place downsampling comes.
    """

    def __init__(
        self,
        run: Function,
        paths: Sequence[str],
        point: Point | None,
        pool: PoolWindow | None,
        norms: list[str],
    ) -> None:
        self.run = run
        self._fetch = attrgetter(*paths) if paths else None
        self._single = len(paths) == 1
        self.point = point
        self.pool = pool
        #: Paths of the batch norms in the order of the computation.
        self.norms = norms
        self.compiled: Function | None = None

    def modules(self, root: nn.Module) -> tuple[Any, ...]:
        """What the stage computes with, as it is in the tree now."""
        if self._fetch is None:
            return ()
        found = self._fetch(root)
        return (found,) if self._single else found

    @torch.compiler.disable
    def downsampled(self, before: Tensor, after: Tensor, ratio: float) -> Tensor:
        """What the stage passes on with downsampling, of its input and its full output."""
        if self.pool is not None:
            return downsample_stem(before, self.pool, ratio)
        return downsample(after, ratio)


def compile_stages(stages: Sequence[Stage], **options) -> None:
    """Compiles the functions of stages, each once; see `Adjustable.compile`."""
    compiled: dict[Function, Function] = {}
    for stage in stages:
        if stage.pool is None:
            if stage.run not in compiled:
                compiled[stage.run] = torch.compile(stage.run, **options)
            stage.compiled = compiled[stage.run]


@dataclass(frozen=True)
class Plan:
    """How a network is computed: its graph and points, and its stages in both modes.

    Copies of a network share it: it holds no tensors, and refers to modules by path.
    """

    graph: Traced
    places: Sequence[Place]
    training: Sequence[Stage]
    evaluation: Sequence[Stage]

    def stages(self, training: bool) -> Sequence[Stage]:
        """The stages in a mode."""
        return self.training if training else self.evaluation

    def norms_behind(self, point: str | None) -> list[str]:
        """Paths of the batch norms behind a point; all of them for None."""
        names = [stage.point.name if stage.point else None for stage in self.evaluation]
        first = 0 if point is None else names.index(point) + 1
        return [path for stage in self.evaluation[first:] for path in stage.norms]

    def __deepcopy__(self, memo: dict) -> Plan:
        return self

    def __reduce__(self):
        raise TypeError(
            "a wrapped network cannot be pickled whole: save net.state_dict() and "
            "net.sdpoint_state(), or sdpoint.torch.save(net, ...) for the engine"
        )


def plan(root: nn.Module, names: Sequence[str] | None = None) -> Plan:
    """Traces a network in both modes and cuts it; raises `WrapError` if that cannot be."""
    graphs = {training: trace(root, training) for training in (False, True)}
    places = {training: find(root, graphs[training], names) for training in graphs}
    found = {training: [place.point for place in places[training]] for training in graphs}
    if found[True] != found[False]:
        raise WrapError(
            f"{type(root).__name__} has other points in training ({_listed(found[True])}) than in "
            f"evaluation ({_listed(found[False])}): name those that are in both, "
            "wrap(..., points=[...])"
        )
    stages = {training: split(root, graphs[training], places[training]) for training in graphs}
    return Plan(graphs[False], places[False], stages[True], stages[False])


def _listed(points: Sequence[Point]) -> str:
    return ", ".join(point.module or point.name for point in points) or "none"


def split(root: nn.Module, traced: Traced, places: Sequence[Place]) -> list[Stage]:
    """Cuts a graph at its points; the stages' composition is the network."""
    nodes = [node for node in traced.nodes if node.op not in ("placeholder", "get_attr")]
    source = next(node for node in traced.nodes if node.op == "placeholder")
    output = nodes.pop().args[0]
    stages: list[Stage] = []
    functions: dict[Any, Function] = {}
    start = 0

    def add(end: int, point: Point | None, pool: PoolWindow | None = None) -> None:
        nonlocal start, source
        part, last = nodes[start:end], nodes[end - 1] if point else output
        stages.append(_stage(root, functions, part, source, last, point, pool))
        start, source = end, last

    for place in places:
        end = nodes.index(place.node) + 1
        if place.pool is None:
            add(end, place.point)
            continue
        if end - 1 > start:
            part, last = nodes[start : end - 1], place.node.args[0]
            stages.append(_stage(root, functions, part, source, last, None, None))
            start, source = end - 1, last
        add(end, place.point, place.pool)
    add(len(nodes), None)
    return stages


def _stage(
    root: nn.Module,
    functions: dict[Any, Function],
    nodes: Sequence[fx.Node],
    source: fx.Node,
    output: fx.Node,
    point: Point | None,
    pool: PoolWindow | None,
) -> Stage:
    graph = fx.Graph()
    copies = {source: graph.placeholder("x")}
    paths: dict[str, int] = {}

    def copy(node: fx.Node) -> None:
        copies[node] = graph.node_copy(node, copied)
        # Names without paths, so that stages of one form have the same text.
        copies[node]._rename("v")
        if node.op in ("call_module", "get_attr"):
            place = paths.setdefault(str(node.target), len(paths))
            copies[node].target = f"m{place}"

    def copied(node: fx.Node) -> fx.Node:
        # Parameters are read where they are used.
        if node not in copies:
            assert node.op == "get_attr", f"{node} crosses a point"
            copy(node)
        return copies[node]

    for node in nodes:
        for used in node.all_input_nodes:
            copied(used)
        copy(node)
    graph.output(copied(output))
    norms = [
        node.target
        for node in nodes
        if node.op == "call_module" and isinstance(root.get_submodule(node.target), _BatchNorm)
    ]
    code = graph.python_code("self")
    called = sorted((name, id(value)) for name, value in code.globals.items())
    form = (code.src, *called, *(_form(root, path) for path in paths))
    if form not in functions:
        functions[form] = _function(code)
    return Stage(functions[form], list(paths), point, pool, list(dict.fromkeys(norms)))


def _form(root: nn.Module, path: str) -> Any:
    """What has to be equal for two modules to be computed by the same compiled code."""
    found = attrgetter(path)(root)
    if not isinstance(found, nn.Module):
        return tuple(found.shape)
    return repr(found), tuple((p.shape, p.requires_grad) for p in found.parameters())


def _function(code: PythonCode) -> Function:
    """A stage's text as a function with code of its own."""
    source = code.src.replace("def forward(self, ", "def forward(modules, ")
    source = re.sub(r"\bself\.m(\d+)\b", r"modules[\1]", source)
    name = f"<sdpoint stage {next(_NUMBERS)}>"
    # For tracebacks, and for compilers that read the source.
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    names = dict(code.globals)
    exec(compile(source, name, "exec"), names)
    return names["forward"]
