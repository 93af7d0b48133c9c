"""Reads a module's computation as a `torch.fx` graph.

A module that fx cannot look into becomes a leaf, as PyTorch's own layers are:
the network goes on to train, and only the engine's reader has to refuse it.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .errors import WrapError
from .modes import kept_modes

#: Leaves are added one by one; a network has fewer kinds of opaque modules.
MAX_ATTEMPTS = 200


@dataclass
class Traced:
    """A module's graph in one mode.

    `owners` maps a node to the path of the module whose `forward` made it;
    `opaque` maps paths of modules that could not be traced to the reason.
    """

    graph: fx.Graph
    owners: dict[fx.Node, str]
    opaque: dict[str, str] = field(default_factory=dict)

    @property
    def nodes(self) -> list[fx.Node]:
        """The nodes in the order of the computation."""
        return list(self.graph.nodes)


class _Tracer(fx.Tracer):
    """Records owners, and where tracing failed."""

    def __init__(self, leaves: set[str]) -> None:
        super().__init__()
        self.leaves = leaves
        self.stack = [""]
        self.owners: dict[fx.Node, str] = {}
        self.failed: str | None = None

    def is_leaf_module(self, m: nn.Module, path: str) -> bool:
        # Norms keep their own module, whatever class it is: statistics are its.
        return path in self.leaves or isinstance(m, _BatchNorm) or super().is_leaf_module(m, path)

    def call_module(self, m, forward, args, kwargs):
        path = self.path_of_module(m)
        if self.is_leaf_module(m, path):
            return super().call_module(m, forward, args, kwargs)
        self.stack.append(path)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            if self.failed is None:
                self.failed = path
            raise
        finally:
            self.stack.pop()

    def create_node(self, *args, **kwargs):
        node = super().create_node(*args, **kwargs)
        self.owners[node] = self.stack[-1]
        return node


def trace(root: nn.Module, training: bool, leaves: set[str] | None = None) -> Traced:
    """Traces `root` in training or evaluation mode; its own mode is kept.

    Raises `WrapError` if the module's own `forward` cannot be traced.
    """
    leaves, opaque = set(leaves or ()), {}
    with kept_modes(root), _pools_by_size():
        root.train(training)
        for _ in range(MAX_ATTEMPTS):
            tracer = _Tracer(leaves)
            try:
                graph = tracer.trace(root, concrete_args=_defaults(root))
            except Exception as error:
                if tracer.failed is None:
                    raise _untraceable(root, error) from error
                leaves.add(tracer.failed)
                opaque[tracer.failed] = str(error).strip().split("\n")[0]
                continue
            traced = Traced(graph, tracer.owners, opaque)
            _tidy(traced)
            _check_output(traced, root, training)
            return traced
    raise WrapError(f"{type(root).__name__} has too many modules that torch.fx cannot trace")


@contextmanager
def _pools_by_size() -> Iterator[None]:
    """Lets pools be traced whose window is a map's size, which older PyTorchs refuse."""
    pool = F.avg_pool2d

    def traced(*args, **kwargs):
        given = [*args, *kwargs.values()]
        if any(isinstance(value, fx.Proxy) for value in given):
            return fx.Proxy.__torch_function__(pool, (fx.Proxy,), args, kwargs)
        return pool(*args, **kwargs)

    F.avg_pool2d = traced
    try:
        yield
    finally:
        F.avg_pool2d = pool


def _untraceable(root: nn.Module, error: Exception) -> WrapError:
    return WrapError(
        f"{type(root).__name__}.forward cannot be traced by torch.fx: {error}. Move what depends "
        "on tensors' values or sizes into a submodule of its own, or simplify forward"
    )


def _defaults(root: nn.Module) -> dict:
    """Arguments of `forward` besides the images, at their defaults."""
    parameters = list(inspect.signature(type(root).forward).parameters.values())[1:]
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if not named:
        raise WrapError(f"{type(root).__name__}.forward takes no images")
    extra = [p.name for p in named[1:] if p.default is p.empty]
    if extra:
        raise WrapError(
            f"{type(root).__name__}.forward needs {', '.join(extra)} besides the images: wrap a "
            "module whose forward takes one tensor"
        )
    return {p.name: p.default for p in named[1:]}


_CHECKS = {torch._assert, operator.eq, operator.ne, operator.and_, operator.gt, operator.lt}


def _tidy(traced: Traced) -> None:
    """Drops checks of shapes, the values that they alone use, and fixed arguments.

    Only what surely has no effect: a call whose result nobody uses may work in place.
    """
    inputs = [node for node in traced.graph.nodes if node.op == "placeholder"]
    for node in reversed(traced.nodes):
        is_check = node.target is torch._assert or node in inputs[1:] or _is_size(node)
        is_check |= node.op == "call_function" and node.target in _CHECKS
        is_check |= getattr(node.target, "__name__", "") == "_assert"
        if is_check and not node.users:
            traced.graph.erase_node(node)
            traced.owners.pop(node, None)
    _localise_batch_size(traced)


def _is_size(node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target in ("size", "dim")
    if node.op != "call_function":
        return False
    of_shape = node.target is operator.getitem and isinstance(node.args[0], fx.Node)
    return (node.target is getattr and node.args[1] in ("shape", "ndim")) or (
        of_shape and _is_size(node.args[0])
    )


def batch_size_of(node: fx.Node) -> bool:
    """Whether a node is the number of images, which is the same all along."""
    if node.op == "call_method" and node.target == "size":
        return node.args[1:] == (0,)
    if node.op == "call_function" and node.target is operator.getitem:
        source, place = node.args
        whole = isinstance(source, fx.Node) and _is_size(source) and len(source.args) < 3
        return place == 0 and whole and source.args[1:] in ((), ("shape",))
    return False


def _localise_batch_size(traced: Traced) -> None:
    """Takes the batch size from the tensor at hand, so that no early tensor stays live."""
    for node in [n for n in traced.nodes if batch_size_of(n)]:
        for user in list(node.users):
            tensor = next((a for a in user.all_input_nodes if not _is_size(a)), None)
            if tensor is None or tensor in node.all_input_nodes:
                continue
            with traced.graph.inserting_before(user):
                size = traced.graph.call_method("size", (tensor, 0))
            traced.owners[size] = traced.owners.get(user, "")
            user.replace_input_with(node, size)
    for node in reversed(traced.nodes):
        if _is_size(node) and not node.users:
            traced.graph.erase_node(node)
            traced.owners.pop(node, None)


def _check_output(traced: Traced, root: nn.Module, training: bool) -> None:
    output = traced.nodes[-1]
    if not isinstance(output.args[0], fx.Node):
        mode = "training" if training else "evaluation"
        raise WrapError(
            f"{type(root).__name__}.forward gives more than one tensor in {mode} mode: wrap a "
            "network that gives logits alone (aux_logits=False in torchvision, say)"
        )
