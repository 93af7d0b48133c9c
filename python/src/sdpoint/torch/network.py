"""The wrapped network: one set of weights, many costs."""

from __future__ import annotations

import copy
import sys
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from . import branches, checks, cost, lower, measure
from .branches import Branch, Branched, Branching
from .draw import PLUS_RATIOS, Draws, check_menu, early_points
from .errors import InstanceError, WrapError
from .instance import FULL, Instance, checked_ratios
from .points import Point
from .stages import Stage, compile_stages, plan
from .statistics import InstanceStatistics, Norms

#: Methods of training; see `wrap`.
METHODS = ("sdpoint", "sdpoint+", "branched")


def wrap(
    module: nn.Module,
    ratios: Iterable[float] | None = None,
    *,
    method: str = "sdpoint",
    points: Sequence[str] | None = None,
    draw: str | None = None,
    seed: int = 0,
    engine: bool = True,
) -> Adjustable:
    """Wraps a network for training with stochastic downsampling.

    The result shares the parameters and buffers of `module`, which is not
    modified, and has the same `state_dict`. `points` are paths of modules whose
    outputs may be downsampled; by default, these are the residual blocks and the
    stem's max pool. `draw` ("uniform") and `seed` are those of `Draws`. `engine=False`
    accepts networks that sdpoint's engine cannot run; they cannot be saved as model files.

    `method` is "sdpoint", the paper's: each step trains one instance; or "sdpoint+": the same
    at `ratios` of 0.5, 0.6 and 0.75, drawn by `early_points`; or "branched": each step trains
    `full` and branches, in which case forward returns a `Branched` instead of logits, and
    `loss` computes the loss. The `ratios` of the others are 0.5 and 0.75.

    Raises `WrapError` if the network has no points, and `EngineError`, which
    names the modules, if the engine cannot run it.

    >>> net = wrap(torchvision.models.resnet18(), ratios=(0.5, 0.75))
    >>> net.instances[:3]
    ['full', 'stem@0.5', 'stem@0.75']
    """
    if isinstance(module, Adjustable):
        raise WrapError(
            "the network is wrapped already: use it as it is, or wrap the plain module again with "
            "other ratios or points"
        )
    checks.check_module(module)
    checks.check_points(points)
    if method not in METHODS:
        raise ValueError(f"'{method}' is not a method: use one of {', '.join(METHODS)}")
    plus = method == "sdpoint+"
    if ratios is None:
        ratios = PLUS_RATIOS if plus else (0.5, 0.75)
    draws = Draws(draw or "uniform", seed)
    net = Adjustable(_sharing_copy(module), checked_ratios(ratios), points, draws)
    if method == "branched":
        net.branching = Branching()
    if plus and draw is None:
        draws.method = early_points(net._instances())
    check_menu(draws.method, net._instances())
    if method == "branched" and draws.draw_only_full:
        raise ValueError(
            f"draw='{draws.method}' leaves no instance to the branches of method='{method}': give "
            "others a probability above 0"
        )
    if engine:
        net.lowered()
    net.requires_engine = engine
    return net


class Adjustable(nn.Module):
    """A network with several instances, which share one set of weights.

    In training mode, each forward draws an instance; in evaluation mode, it runs
    the one selected by `instance`, or `full`. Modules, parameters, buffers and
    `state_dict` are those of the plain network. Only one forward may run at a
    time, because the batch norms have the instance's statistics during it.
    """

    def __init__(
        self,
        tree: nn.Module,
        ratios: tuple[float, ...],
        names: Sequence[str] | None,
        draws: Draws,
    ) -> None:
        super().__init__()
        # The same dictionaries, so that what is replaced in one is in both. The
        # tree itself is hidden, lest its names get a prefix.
        self.__dict__["_tree"] = tree
        for shared in ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"):
            self.__dict__[shared] = tree.__dict__[shared]
        self.training = tree.training
        #: What the architecture is called in model files.
        self.name = type(tree).__name__
        #: What is kept of each side at a point, ascending.
        self.ratios = ratios
        #: The draws of training steps: `draws.seed` and `draws.step` may be set.
        self.draws = draws
        #: The instance of the last forward.
        self.current = FULL
        #: Recompute each stage in the backward pass instead of keeping its tensors.
        self.checkpointing = False
        #: How branches train in each step; None trains one drawn instance.
        self.branching: Branching | None = None
        #: Whether the engine has to be able to run it.
        self.requires_engine = True
        self.statistics = InstanceStatistics()
        self._chosen: Instance | None = None
        self._warned = False
        self._recent: deque[tuple[int, Instance]] = deque(maxlen=256)
        self._recent_branches: deque[tuple[int, list[Instance]]] = deque(maxlen=256)
        self._costs: dict[tuple[int, int], dict[str, int]] = {}
        self._plan = plan(tree, names)
        self._points = [place.point for place in self._plan.places]
        checks.check_norms(tree, self._plan.graph)
        self._norms = Norms(tree, self._plan.norms_behind(None))
        self.register_load_state_dict_post_hook(_loaded)

    # Description

    @property
    def points(self) -> list[Point]:
        """The downsampling points in the order of the data."""
        return list(self._points)

    @property
    def instances(self) -> list[str]:
        """The names of all instances: `full`, then point by point."""
        return [str(instance) for instance in self._instances()]

    def _instances(self) -> list[Instance]:
        return [Instance()] + [Instance(p.name, r) for p in self._points for r in self.ratios]

    def cost(self, size: int | tuple[int, int], channels: int | None = None) -> dict[str, int]:
        """Multiply-accumulates of each instance for one image of `size`.

        `size` is the side, or (height, width). Convolutions and linear layers
        are counted, as usual (4.09 G for ResNet-50 at 224).
        """
        return cost.of(self, checks.sides(size), channels, self._instances())

    def lowered(self) -> lower.Lowered:
        """The network as the engine's model files describe it.

        Raises `EngineError` naming every module that the engine cannot run.
        """
        return lower.lower(self._tree, self._plan.graph, self._plan.places, self.name)

    # Selection of the instance

    def instance(self, name: str | None) -> Adjustable:
        """Selects an instance for all forwards from now on; None draws again.

        Any ratio is allowed, such as "3@0.6"; evaluation needs its statistics.
        """
        self._chosen = None if name is None else self.parsed(name)
        return self

    def parsed(self, name: str) -> Instance:
        """An instance by name; raises `InstanceError` if the network has no such point."""
        instance = Instance.parse(name)
        if instance.point is not None and instance.point not in [p.name for p in self._points]:
            known = ", ".join(point.name for point in self._points)
            raise InstanceError(f"there is no point {instance.point}; the points are {known}")
        return instance

    def follow(self, optimizer: torch.optim.Optimizer) -> Adjustable:
        """Draws one instance per step of `optimizer`, for gradient accumulation.

        By default, every forward in training mode draws. Steps that a gradient
        scaler skips do not count.
        """
        if not hasattr(optimizer, "register_step_post_hook"):
            raise TypeError(f"{type(optimizer).__name__} is not a torch.optim.Optimizer")
        draws = self.draws
        draws.followed = True

        def advance(*_: Any) -> None:
            draws.step += 1

        optimizer.register_step_post_hook(advance)
        return self

    def _choose(self, x: Tensor) -> Instance:
        recomputed = _in_backward()
        if recomputed:
            return self._seen(x)
        if self._chosen is not None:
            chosen = self._chosen
        elif self.training:
            chosen = self._draw(x)
        else:
            chosen = Instance()
        if self.training:
            self._recent.append((x.data_ptr(), chosen))
        return chosen

    def _draw(self, x: Tensor) -> Instance:
        drawn = self.draws.at(self.draws.step, self._instances(), self._costs_for(x))
        if not self.draws.followed:
            self.draws.step += 1
        return drawn

    def _draw_branches(self, x: Tensor, count: int) -> list[Instance]:
        """The instances of `count` branches; in a recomputation, those of the first time."""
        if _in_backward():
            for pointer, drawn in reversed(self._recent_branches):
                if pointer == x.data_ptr():
                    return drawn
        costs = self._costs_for(x)
        drawn = self.draws.branches_at(self.draws.step, count, self._instances(), costs)
        if not self.draws.followed and not _in_backward():
            self.draws.step += 1
        self._recent_branches.append((x.data_ptr(), drawn))
        return drawn

    def _costs_for(self, x: Tensor) -> Mapping[str, int] | None:
        """The costs for images of this size, if the draws need them."""
        if not self.draws.needs_costs:
            return None
        size = (int(x.shape[2]), int(x.shape[3]))
        if size not in self._costs:
            self._costs[size] = self.cost(size, int(x.shape[1]))
        return self._costs[size]

    def _seen(self, x: Tensor) -> Instance:
        """The instance that an input went through when it was first computed."""
        for pointer, instance in reversed(self._recent):
            if pointer == x.data_ptr():
                return instance
        return Instance.parse(self.current)

    # Forward

    # Under `torch.compile(net)` the compiler is to see the stages and nothing around them,
    # which would be compiled anew for each instance: functions that call stages are skipped
    # (recursive=False), and the others run as they are, with all that they call.

    @torch.compiler.disable(recursive=False)
    def forward(self, x: Tensor) -> Tensor | Branched:
        """Computes the logits of `[N, C, H, W]` images in one instance.

        In training with `branching`, unless an instance is selected, it computes those of
        `full` and of branches: see `Branched` and `loss`.
        """
        if self.training and self.branching is not None and self._chosen is None:
            return self._forward_branched(x, self.branching)
        instance, lent = self._begin(x)
        borrowed = self._norms.lend(lent)
        try:
            for stage in self._plan.stages(self.training):
                x = self._stage(stage, x, instance)
        finally:
            self._norms.take_back(borrowed)
        return x

    @torch.compiler.disable(recursive=False)
    def _forward_branched(self, x: Tensor, branching: Branching) -> Branched:
        """`full` on all images, and a branch on each part of them."""
        full, lent = self._begin(x, Instance())
        images = branches.parts(branching.branches, len(x))
        drawn = self._draw_branches(x, len(images))
        stages = self._plan.stages(True)
        points = {instance.point for instance in drawn}
        # What goes into and comes out of the stage before each point.
        around: dict[str, tuple[int, Tensor, Tensor]] = {}
        borrowed = self._norms.lend(lent)
        try:
            logits = x
            for index, stage in enumerate(stages):
                before, logits = logits, self._stage(stage, logits, full)
                if stage.point is not None and stage.point.name in points:
                    around[stage.point.name] = (index, before, logits)
        finally:
            self._norms.take_back(borrowed)
        results = []
        with self._norms.bound(self._norms.scratch()):
            for instance, part in zip(drawn, images, strict=False):
                self._warn_of_frozen_norms(instance)
                index, before, after = around[instance.point]
                y = stages[index].downsampled(before[part], after[part], instance.ratio)
                for stage in stages[index + 1 :]:
                    y = self._stage(stage, y, instance)
                results.append(Branch(str(instance), part, y))
        return Branched(logits, tuple(results), branching)

    @torch.compiler.disable
    def _begin(
        self, x: Tensor, instance: Instance | None = None
    ) -> tuple[Instance, Mapping[str, Mapping[str, Tensor]]]:
        """The instance of a forward, and the buffers that its norms are lent."""
        checks.check_images(x)
        instance = self._choose(x) if instance is None else instance
        self.current = str(instance)
        if self.training:
            if self.statistics.own:
                self.statistics.stale = "the network was trained after"
            self._warn_of_frozen_norms(instance)
            # In a recomputation the statistics have moved already.
            other = instance.point is not None or _in_backward()
            return instance, self._norms.scratch() if other else {}
        return instance, self.lent(instance)

    def lent(self, instance: Instance) -> Mapping[str, Mapping[str, Tensor]]:
        """What an instance has of its own in evaluation, by module path.

        Raises `StatisticsError` if that is not known.
        """
        own = self._behind(instance) or str(instance) in self.statistics.parameters
        return self.statistics.buffers(str(instance)) if instance.point and own else {}

    @torch.compiler.disable(recursive=False)
    def _stage(self, stage: Stage, x: Tensor, instance: Instance) -> Tensor:
        run = stage.compiled or stage.run
        _mark_sides(x)
        if self.checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(self._recomputable(run), stage, x, instance, use_reentrant=False)
        return self.apply_stage(run, stage, x, instance)

    def _recomputable(self, run):
        """A stage's function for checkpoints: statistics move the first time alone."""

        def function(stage: Stage, x: Tensor, instance: Instance) -> Tensor:
            if not _in_backward():
                return self.apply_stage(run, stage, x, instance)
            with self._norms.bound(self._norms.scratch()):
                return self.apply_stage(run, stage, x, instance)

        return function

    @torch.compiler.disable(recursive=False)
    def apply_stage(self, run, stage: Stage, x: Tensor, instance: Instance) -> Tensor:
        """One stage of an instance, by `run`, which is the stage's function or a compiled one."""
        try:
            here = stage.point is not None and stage.point.name == instance.point
            # The stem's pool gives way to the adaptive one.
            pooled = here and stage.pool is not None
            after = x if pooled else run(stage.modules(self._tree), x)
            return stage.downsampled(x, after, instance.ratio) if here else after
        except (RuntimeError, ValueError) as error:
            explained = checks.explained(error, self, stage, x, instance)
            if explained is error:
                raise
            raise explained from error

    def _warn_of_frozen_norms(self, instance: Instance) -> None:
        if instance.point is None or self._warned:
            return
        behind = self._behind(instance)
        frozen = [path for path in behind if not self._norms.module(path).training]
        if frozen:
            self._warned = True
            checks.warn_of_frozen_norms(frozen)

    def _behind(self, instance: Instance) -> list[str]:
        """Paths of the norms that see another input in an instance than in `full`."""
        return self._plan.norms_behind(instance.point)

    def compile(self, **options: Any) -> Adjustable:
        """Compiles the stages between points, once for all stages of the same form.

        Heights and widths are dynamic, and drawing and downsampling are not
        compiled, so that the number of graphs does not grow with the instances.
        `options` are those of `torch.compile`. `torch.compile(net)` compiles the
        same stages.
        """
        compile_stages((*self._plan.training, *self._plan.evaluation), **options)
        return self

    # Overrides of nn.Module

    def train(self, mode: bool = True) -> Adjustable:
        super().train(mode)
        self._tree.training = mode
        return self

    def _apply(self, fn, recurse: bool = True):
        super()._apply(fn, recurse)
        with torch.no_grad():
            self.statistics.apply(fn)
        return self

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            tree = self.__dict__.get("_tree")
            if tree is None or name.startswith("__"):
                raise
            # Attributes of the plain network, such as timm's `default_cfg`.
            return getattr(tree, name)

    def extra_repr(self) -> str:
        return f"points={[p.name for p in self._points]}, ratios={self.ratios}"

    def sdpoint_state(self) -> dict[str, Any]:
        """What a checkpoint needs besides `state_dict`: draws and statistics."""
        return {
            "draws": self.draws.state_dict(),
            "statistics": self.statistics.own,
            "parameters": self.statistics.parameters,
            "stale": self.statistics.stale,
        }

    def load_sdpoint_state(self, state: Mapping[str, Any]) -> None:
        """Restores the result of `sdpoint_state`; call it after `load_state_dict`."""
        missing = [key for key in ("draws", "statistics", "stale") if key not in state]
        if missing:
            raise ValueError(f"this is no result of sdpoint_state: it lacks '{missing[0]}'")
        for instance, moments in state["statistics"].items():
            place = Instance.parse(instance)
            known = place.point in [point.name for point in self._points]
            if not known or list(moments) != self._behind(place):
                raise ValueError(
                    f"the state is of another network: it has other statistics for {instance}"
                )
        self.draws.load_state_dict(state["draws"])
        like = next((p.device for p in self.parameters()), torch.device("cpu"))
        self.statistics.own = {
            instance: {path: (m.to(like), v.to(like)) for path, (m, v) in moments.items()}
            for instance, moments in state["statistics"].items()
        }
        self.statistics.parameters = {
            instance: {
                path: {name: tensor.to(like) for name, tensor in tensors.items()}
                for path, tensors in modules.items()
            }
            for instance, modules in state.get("parameters", {}).items()
        }
        self.statistics.stale = state["stale"]

    # Measurements

    def profile(self, device=None, batch: int = 1, size: int = 224, **options):
        """Measures the time of every instance in milliseconds; see `measure.profile`."""
        return measure.profile(self, device, batch=batch, size=size, **options)

    def curve(self, loader, **options):
        """Measures the accuracy of every instance; see `measure.curve`."""
        return measure.curve(self, loader, **options)


def unwrapped(net: nn.Module) -> Adjustable:
    """The network within DistributedDataParallel, `torch.compile` and the like."""
    while not isinstance(net, Adjustable):
        inner = getattr(net, "module", None) or getattr(net, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            name = type(net).__name__
            raise TypeError(f"{name} is not a wrapped network: call sdpoint.torch.wrap")
        net = inner
    return net


def _sharing_copy(module: nn.Module) -> nn.Module:
    """Another tree of modules with the same parameters and buffers."""
    memo: dict[int, Any] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        memo[id(tensor)] = tensor
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:
        raise WrapError(
            f"{type(module).__name__} cannot be copied ({error}): tensors that are results of "
            "computations must not be attributes of modules; register parameters and buffers"
        ) from error


def _loaded(module: Adjustable, _: Any) -> None:
    if module.statistics.own:
        module.statistics.stale = "weights were loaded after"


def _in_backward() -> bool:
    """Whether this thread is within a backward pass: what runs then is recomputed."""
    return torch._C._current_graph_task_id() != -1


@torch.compiler.disable
def _mark_sides(x: Tensor) -> None:
    """Tells the compiler, if one is in use, that heights and widths vary."""
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None and x.dim() == 4:
        dynamo.maybe_mark_dynamic(x, (2, 3))
