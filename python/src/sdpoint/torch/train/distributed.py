"""One process or many under torchrun."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous


@dataclass(frozen=True)
class World:
    """This process among all of a run."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def sum(self, values: list[float]) -> list[float]:
        """The sums over all processes."""
        if self.size == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return tensor.tolist()

    def rows(self, values: list[float]) -> list[list[float]]:
        """The values of each process, in the order of ranks."""
        table = [[0.0] * len(values) for _ in range(self.size)]
        table[self.rank] = values
        flat = self.sum([value for row in table for value in row])
        return [flat[i : i + len(values)] for i in range(0, len(flat), len(values))]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()

    def close(self) -> None:
        """Leaves the group of processes."""
        if self.size > 1:
            dist.destroy_process_group()


def launcher() -> str:
    """What started this process: torchrun's job where it has a name, else its process.

    It is the same for all processes, and after they are started again.
    """
    return job() or f"process {os.getppid()}"


def job() -> str | None:
    """The name of torchrun's job (`--rdzv-id`), if it has one."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return None if name == "none" else name


def _meet(backend: str, size: int) -> None:
    """Makes the group of all processes."""
    if os.environ.get("LOCAL_WORLD_SIZE") != str(size):
        dist.init_process_group(backend)
        return
    # All on one machine. torchrun may keep one store for all its attempts, in which
    # processes that it restarts find the addresses of those that failed.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store, rank, _ = next(rendezvous("env://"))
    store = dist.PrefixStore(f"attempt {attempt}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)


def join(device: str) -> World:
    """Joins the group that torchrun describes in the environment, if there is one.

    `device` is "auto", "cpu" or "cuda".
    """
    wanted = "cuda" if device == "auto" and torch.cuda.is_available() else device
    wanted = "cpu" if wanted == "auto" else wanted
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("there is no CUDA device: use --device cpu")
    size = int(os.environ.get("WORLD_SIZE", "1"))
    place = int(os.environ.get("LOCAL_RANK", "0"))
    if wanted == "cuda":
        torch.cuda.set_device(place)
        found = torch.device("cuda", place)
    else:
        found = torch.device(wanted)
    if size > 1:
        _meet("nccl" if found.type == "cuda" else "gloo", size)
    return World(int(os.environ.get("RANK", "0")), size, found)
