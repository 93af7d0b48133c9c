"""What tests share: small networks, and the engine built from this repository."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(os.environ.get("SDPOINT_PROGRAMS", ROOT / "target/release"))
ORACLES = ROOT / "fixtures/oracles"


# The networks are small: more threads only wait for each other.
torch.set_num_threads(1)


class Block(nn.Module):
    """A post-activation block that is neither torchvision's nor timm's."""

    def __init__(self, channels, out, stride=1):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
            nn.Conv2d(out, out, 3, padding=1),
            nn.BatchNorm2d(out),
        )
        self.skip = nn.Conv2d(channels, out, 1, stride) if channels != out or stride > 1 else None

    def forward(self, x):
        shortcut = x if self.skip is None else self.skip(x)
        x = self.body(x)
        x += shortcut
        return torch.relu(x)


class Small(nn.Module):
    """A residual network as users write them; three blocks and no stem pool."""

    def __init__(self, classes=10, dropout=0.0):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(Block(8, 8), Block(8, 16, 2), Block(16, 16))
        self.norm = nn.BatchNorm2d(16)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(16, classes)

    def forward(self, x):
        x = self.norm(self.blocks(self.stem(x)))
        x = x.mean((2, 3))
        return self.head(self.drop(x).view(x.size(0), -1))


def randomised(net: nn.Module, seed: int = 0) -> nn.Module:
    """Random statistics, scales and shifts; the weights are random already."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(0, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.2, generator=generator)
    return net


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def engine_logits(model: Path, instance: str, images: torch.Tensor) -> np.ndarray:
    """What the engine computes of [N, C, H, W] images."""
    program = PROGRAMS / "examples/logits"
    if not program.exists():
        pytest.skip("build the engine: cargo build --release -p sdpoint --example logits")
    command = [program, model, instance, *map(str, images.shape[2:])]
    data = images.numpy().astype("<f4").tobytes()
    ran = subprocess.run(command, input=data, capture_output=True)
    assert ran.returncode == 0, ran.stderr.decode()
    return np.frombuffer(ran.stdout, "<f4").reshape(len(images), -1)


def difference(found, expected) -> float:
    """The largest difference, on the scale of the largest value."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())
