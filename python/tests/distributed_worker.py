"""Run by torchrun from `test_distributed.py`: trains some steps and leaves what it has."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from conftest import Small
from torch.nn.parallel import DistributedDataParallel

import sdpoint.torch as sp


def batches(steps, parts):
    """The halves of each step's batch."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        images = torch.randn(16, 3, 16, 16, generator=generator)
        labels = torch.randint(10, (16,), generator=generator)
        yield list(zip(images.chunk(parts), labels.chunk(parts), strict=True))


def train(net, model, mine):
    """Ten steps; `mine` picks a process's parts of a step."""
    optimizer = torch.optim.SGD(net.parameters(), 0.05, 0.9)
    net.follow(optimizer)
    model.train()
    drawn = []
    for parts in batches(10, 2):
        for images, labels in mine(parts):
            output = model(images)
            loss = sp.loss(output, labels)
            (loss / len(mine(parts))).backward()
        branches = [] if net.branching is None else output.branches
        drawn.append(" ".join([net.current, *(branch.instance for branch in branches)]))
        optimizer.step()
        optimizer.zero_grad()
    return drawn


if __name__ == "__main__":
    folder, method = Path(sys.argv[1]), sys.argv[2]
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    net = sp.wrap(Small(), ratios=(0.5,), method=method, seed=3)
    # Without find_unused_parameters: every instance uses every parameter.
    model = DistributedDataParallel(net)
    drawn = train(net, model, lambda parts: [parts[rank]])
    images = torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    sp.calibrate(model, images[rank * 16 : rank * 16 + 16].split(8), images=32)
    rows = net.curve([(images[rank::2], torch.zeros(16, dtype=torch.long))])
    result = {
        "drawn": drawn,
        "weights": net.state_dict(),
        "statistics": net.statistics.state_dict(),
        "loss": [row.loss for row in rows],
    }
    torch.save(result, folder / f"rank{rank}.pt")
    dist.destroy_process_group()
