"""Code shared by the checks: running sdpoint, and comparing numbers."""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

PROGRAMS = Path(sys.argv[1]).resolve()
WORK = Path(tempfile.mkdtemp(prefix="sdpoint-peers-"))


def sdpoint(*arguments):
    command = [PROGRAMS / "sdpoint", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stderr}")
    return done.stdout


def ours(model, instance, images):
    """The logits of sdpoint for [batch, colours, height, width]."""
    command = [PROGRAMS / "examples/logits", model, instance, *map(str, images.shape[2:])]
    data = images.numpy().astype("<f4").tobytes()
    logits = subprocess.run(command, input=data, check=True, capture_output=True).stdout
    return np.frombuffer(logits, "<f4").reshape(len(images), -1)


def random_model(name, size, *preprocessing):
    """A model file of a network with random weights and statistics of every instance."""
    path = WORK / f"{name}-{size[0]}x{size[1]}.safetensors"
    command = [PROGRAMS / "examples/random_model", name, *map(str, size), path, *preprocessing]
    subprocess.run(command, check=True)
    return path


def difference(found, expected):
    """The largest difference, relative to the largest value."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def check(what, worst, allowed):
    print(f"{'ok  ' if worst <= allowed else 'FAIL'} {what}: {worst:.1e} of {allowed:.0e}", flush=True)
    if not worst <= allowed:
        check.failed += 1


check.failed = 0


class Worst:
    """The largest difference of each of several results, and all failures."""

    def __init__(self, allowed):
        self.allowed, self.seen = allowed, {}

    def compare(self, what, where, compute, expected):
        """Records a computation's difference; an exception counts as infinite."""
        try:
            value = difference(compute(), expected)
        except Exception as error:
            print(f"     {what}, {where}: {type(error).__name__}: {str(error).strip()[-400:]}", flush=True)
            value = float("inf")
        if not value <= self.allowed:
            print(f"     {what}, {where}: {value:.1e}", flush=True)
        before = self.seen.get(what, (0.0, 0))
        self.seen[what] = (max(before[0], value), before[1] + 1)

    def report(self, where):
        for what, (value, count) in self.seen.items():
            check(f"{where}, {what}, {count} comparisons", value, self.allowed)


def randomised(net, seed):
    """Random statistics and batch norms; the weights are random already."""
    torch.manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    return net.eval()
