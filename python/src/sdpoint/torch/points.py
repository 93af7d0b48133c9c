"""Finds where a traced network may be downsampled.

A point is a place where one tensor alone carries all that later layers see: the
sum that ends a residual block, before the block's closing ReLU, and the stem's
max pool.
"""

from __future__ import annotations

import difflib
import itertools
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import fx, nn

from .errors import WrapError
from .instance import STEM
from .pooling import PoolWindow
from .trace import Traced


@dataclass(frozen=True)
class Point:
    """A downsampling point.

    `name` is `stem` or the number of a block, as in instances; `module` is the path
    of the block or of the max pool.
    """

    name: str
    module: str


@dataclass(frozen=True)
class Place:
    """A point in a graph: the node whose output is downsampled, or the max pool."""

    point: Point
    node: fx.Node
    pool: PoolWindow | None = None


ADDITIONS = {operator.add, operator.iadd, torch.add}
RELUS = {F.relu, torch.relu, torch.relu_, F.relu_}
#: What may close a block, and lies behind the point then.
CLOSING = RELUS | {F.relu6}


def is_sum(node: fx.Node) -> bool:
    """Whether a node adds two tensors."""
    named = node.op == "call_function" and node.target in ADDITIONS
    named |= node.op == "call_method" and node.target in ("add", "add_")
    return named and len([a for a in node.args[:2] if isinstance(a, fx.Node)]) == 2


def module_of(root: nn.Module, node: fx.Node) -> nn.Module | None:
    """The module that a node calls, if it calls one."""
    return root.get_submodule(node.target) if node.op == "call_module" else None


def find(root: nn.Module, traced: Traced, names: Sequence[str] | None = None) -> list[Place]:
    """The points of a traced network, in the order of the data.

    Without `names`, the stem's max pool and the end of every residual block of
    convolutions; with `names`, the ends of the modules at these paths.
    """
    if names is not None:
        return _named(root, traced, names)
    cuts = cut_nodes(traced)
    blocks = [node for node in cuts if is_sum(node) and _ends_block(root, traced, cuts, node)]
    if not blocks:
        raise WrapError(_no_blocks(root, traced))
    places = _stem(root, traced, cuts, before=blocks[0])
    for number, node in enumerate(blocks):
        places.append(Place(Point(str(number), traced.owners.get(node, "")), node))
    return places


def cut_nodes(traced: Traced) -> list[fx.Node]:
    """The nodes right after which no other tensor is still to be used.

    The input and the output are none, nor are parameters.
    """
    nodes = traced.nodes
    index = {node: place for place, node in enumerate(nodes)}
    last = [max((index[user] for user in node.users), default=-1) for node in nodes]
    cuts: list[fx.Node] = []
    live_until = -1  # the last use of any tensor from before
    for place, node in enumerate(nodes):
        if node.op == "get_attr":
            continue
        is_cut = live_until <= place < last[place]
        if is_cut and node.op not in ("placeholder", "output"):
            cuts.append(node)
        live_until = max(live_until, last[place])
    return cuts


def _ends_block(root: nn.Module, traced: Traced, cuts: list[fx.Node], node: fx.Node) -> bool:
    """Whether a sum closes branches, one with a convolution, of the tensor before it."""
    nodes = traced.nodes
    end = nodes.index(node)
    earlier = cuts[: cuts.index(node)]
    start = nodes.index(earlier[-1]) if earlier else 0
    return any(has_convolution(root, between) for between in nodes[start + 1 : end])


def has_convolution(root: nn.Module, node: fx.Node) -> bool:
    """Whether a node convolves feature maps, itself or within an opaque module."""
    module = module_of(root, node)
    if module is None:
        return node.op == "call_function" and node.target is F.conv2d
    return any(isinstance(m, nn.Conv2d) for m in module.modules())


def pool_window(root: nn.Module, node: fx.Node) -> PoolWindow | None:
    """The window of a node that is a max pool."""
    module = module_of(root, node)
    if isinstance(module, nn.MaxPool2d):
        return PoolWindow(
            module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode
        )
    if node.op == "call_function" and node.target in (F.max_pool2d, torch.max_pool2d):
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        given = dict(zip(names, node.args[1:], strict=False)) | dict(node.kwargs)
        return PoolWindow(
            given["kernel_size"],
            given.get("stride"),
            given.get("padding", 0),
            given.get("dilation", 1),
            given.get("ceil_mode", False),
        )
    return None


def _stem(root: nn.Module, traced: Traced, cuts: list[fx.Node], before: fx.Node) -> list[Place]:
    """The last max pool before the first block, if it alone is fed at its place."""
    nodes = traced.nodes
    for node in reversed(nodes[: nodes.index(before)]):
        window = pool_window(root, node)
        if window is None:
            continue
        if node in cuts and _alone(cuts, node):
            return [Place(Point(STEM, _path(traced, node)), node, window)]
        return []
    return []


def _alone(cuts: list[fx.Node], node: fx.Node) -> bool:
    """Whether what goes into a cut node is the one live tensor there."""
    source = node.args[0]
    return isinstance(source, fx.Node) and (source.op == "placeholder" or source in cuts)


def _path(traced: Traced, node: fx.Node) -> str:
    return str(node.target) if node.op == "call_module" else traced.owners.get(node, "")


def _named(root: nn.Module, traced: Traced, names: Sequence[str]) -> list[Place]:
    cuts, nodes = cut_nodes(traced), traced.nodes
    ends = {}
    for name in names:
        ends[name] = _end_of(root, traced, cuts, name)
    ordered = sorted(ends.items(), key=lambda entry: nodes.index(entry[1]))
    for (first, one), (second, other) in itertools.pairwise(ordered):
        if one is other:
            raise WrapError(f"the modules '{first}' and '{second}' end in the same place: name one")
    places, number = [], 0
    for name, node in ordered:
        window = pool_window(root, node)
        if window is not None and not places and _alone(cuts, node):
            places.append(Place(Point(STEM, name), node, window))
        else:
            places.append(Place(Point(str(number), name), node))
            number += 1
    return places


def _end_of(root: nn.Module, traced: Traced, cuts: list[fx.Node], name: str) -> fx.Node:
    paths = [path for path, _ in root.named_modules()]
    if name not in paths:
        close = difflib.get_close_matches(name, paths, n=3)
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise WrapError(f"the network has no module '{name}'{hint}")
    inside = [
        node
        for node in traced.nodes
        if (node.op == "call_module" and node.target == name)
        or f"{traced.owners.get(node, '')}.".startswith(f"{name}.")
    ]
    if not inside:
        raise WrapError(f"forward does not use the module '{name}'")
    node = inside[-1]
    source = node.args[0] if node.args else None
    if closes_block(root, node) and isinstance(source, fx.Node) and is_sum(source):
        node = source
    if node in cuts and any(_flattens(root, cut) for cut in cuts[: cuts.index(node) + 1]):
        raise WrapError(
            f"the end of '{name}' is no point: feature maps have been flattened there, and only "
            "those can be downsampled. Name a module before the classifier"
        )
    if node not in cuts:
        raise WrapError(
            f"the end of '{name}' is no point: other tensors pass it by (a shortcut, say). Name a "
            "module behind which one tensor carries everything, such as a whole residual block"
        )
    return node


def _flattens(root: nn.Module, node: fx.Node) -> bool:
    """Whether a node flattens feature maps, or takes what is flat."""
    if isinstance(module_of(root, node), (nn.Flatten, nn.Linear)):
        return True
    if node.op == "call_function":
        return node.target in (torch.flatten, F.linear)
    return node.op == "call_method" and node.target == "flatten"


def closes_block(root: nn.Module, node: fx.Node) -> bool:
    """Whether a node is a ReLU, of whatever form, as post-activation blocks end in."""
    if node.op == "call_function":
        return node.target in CLOSING
    if node.op == "call_method":
        return node.target in ("relu", "relu_")
    return isinstance(module_of(root, node), (nn.ReLU, nn.ReLU6))


def _no_blocks(root: nn.Module, traced: Traced) -> str:
    name = type(root).__name__
    attention = [
        path
        for path, module in root.named_modules()
        if "attention" in type(module).__name__.lower()
    ]
    if attention:
        return (
            f"{name} is a transformer (attention at '{attention[0]}'): its tokens are no feature "
            "map that could be downsampled between residual blocks. Stochastic downsampling needs "
            "a convolutional network with residual blocks, such as a ResNet"
        )
    if traced.opaque:
        path, reason = next(iter(traced.opaque.items()))
        return (
            f"{name} has no residual block that torch.fx can see; it could not look into "
            f"'{path}' ({reason}). Name the modules that end in one tensor: "
            f"wrap(..., points=['{path}'], engine=False)"
        )
    text = f"{name} has no residual block of convolutions with one live tensor at its end"
    others = [str(node.target) for node in cut_nodes(traced) if node.op == "call_module"]
    if not others:
        return f"{text}, nor any other place where one tensor carries everything"
    middle = others[len(others) // 2]
    return (
        f"{text}. Any module behind which one tensor carries everything can be named instead: "
        f"wrap(..., points=['{middle}', ...]); this network has {len(others)} such modules"
    )
