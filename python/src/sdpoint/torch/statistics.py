"""Batch-norm statistics of instances, kept outside of the network's `state_dict`.

While an instance runs, its norms are bound to buffers other than their own:
in evaluation to the instance's statistics, in training to scratch, so that only
steps of `full` move the running statistics. Norms keep their module and class.
Models of `sdpoint calibrate --own-scale` have scales, shifts and a classifier's
bias of an instance's own, which are lent in evaluation in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .errors import StatisticsError

#: Mean and variance of each channel.
Moments = tuple[Tensor, Tensor]
#: Dictionaries of buffers or parameters, and what they held before.
Borrowed = list[tuple[dict[str, Tensor | None], dict[str, Tensor | None]]]
PARAMETERS = ("weight", "bias")


class Norms:
    """The batch norms of a module tree that have running statistics, by path."""

    def __init__(self, tree: nn.Module, paths: Iterable[str]) -> None:
        self.paths = list(paths)
        self._tree = tree
        self._scratch: dict[str, dict[str, Tensor]] = {}

    def module(self, path: str) -> nn.Module:
        """The norm at a path, as it is now."""
        return self._tree.get_submodule(path)

    def scratch(self) -> dict[str, dict[str, Tensor]]:
        """Buffers that take updates and are never read."""
        for path in self.paths:
            own = self.module(path)._buffers
            known = self._scratch.get(path)
            if known is None or known["running_mean"].device != own["running_mean"].device:
                # Ordinary tensors even if the first forward is under inference_mode.
                with torch.inference_mode(False), torch.no_grad():
                    self._scratch[path] = {
                        name: torch.zeros_like(own[name], memory_format=torch.contiguous_format)
                        for name in ("running_mean", "running_var", "num_batches_tracked")
                        if own.get(name) is not None
                    }
        return self._scratch

    @torch.compiler.disable
    def lend(self, buffers: Mapping[str, Mapping[str, Tensor]]) -> Borrowed:
        """Puts other tensors into the modules at some paths; `take_back` undoes it."""
        kept = []
        for path, lent in buffers.items():
            module = self.module(path)
            for own in (module._buffers, module._parameters):
                here = {name: tensor for name, tensor in lent.items() if name in own}
                kept.append((own, {name: own[name] for name in here}))
                own.update(here)
        return kept

    @torch.compiler.disable
    def take_back(self, borrowed: Borrowed) -> None:
        """Gives the modules the tensors back that they had."""
        for own, before in borrowed:
            own.update(before)

    @contextmanager
    def bound(self, buffers: Mapping[str, Mapping[str, Tensor]]) -> Iterator[None]:
        """Lends the norms at some paths other buffers for as long as it lasts."""
        borrowed = self.lend(buffers)
        try:
            yield
        finally:
            self.take_back(borrowed)


class InstanceStatistics:
    """The statistics of all instances but `full`, whose are the norms' own buffers.

    `own[instance][path]` are mean and variance of the norm at a path; there are
    only those behind the instance's point. `stale` says why they no longer
    belong to the weights, if so.
    """

    def __init__(self) -> None:
        self.own: dict[str, dict[str, Moments]] = {}
        #: Of instances that have any: `weight` and `bias` of their own, by module path.
        self.parameters: dict[str, dict[str, dict[str, Tensor]]] = {}
        self.stale: str | None = None

    def buffers(self, instance: str) -> dict[str, dict[str, Tensor]]:
        """What modules are lent in an instance; raises `StatisticsError` if unknown."""
        if instance not in self.own:
            known = ", ".join(list(self.own)[:5]) or "none but full"
            raise StatisticsError(
                f"{instance} has no batch-norm statistics (known: {known}): run "
                "sdpoint.torch.calibrate(net, loader) after training and before evaluation"
            )
        if self.stale is not None:
            raise StatisticsError(
                f"the statistics of {instance} are out of date, since {self.stale}: run "
                "sdpoint.torch.calibrate(net, loader) again"
            )
        lent = {
            path: {"running_mean": mean, "running_var": var}
            for path, (mean, var) in self.own[instance].items()
        }
        for path, tensors in self.parameters.get(instance, {}).items():
            lent.setdefault(path, {}).update(tensors)
        return lent

    def apply(self, function: Callable[[Tensor], Tensor]) -> None:
        """Moves or converts all tensors, as the network's buffers are."""
        self.own = {
            instance: {path: (function(m), function(v)) for path, (m, v) in moments.items()}
            for instance, moments in self.own.items()
        }
        self.parameters = {
            instance: {
                path: {name: function(tensor) for name, tensor in tensors.items()}
                for path, tensors in modules.items()
            }
            for instance, modules in self.parameters.items()
        }

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors under their names in a model file."""
        return {
            f"instances/{instance}/{path}.{kind}": value
            for instance, moments in self.own.items()
            for path, pair in moments.items()
            for kind, value in zip(("running_mean", "running_var"), pair, strict=True)
        }
