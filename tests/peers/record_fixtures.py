"""Records the small checkpoints that the tests of sdpoint-exchange read, and smaller ones to
start a search for hostile files from.

    tests/peers/.venv/bin/python tests/peers/record_fixtures.py

One tiny ResNet with random weights and statistics, saved in every way that
PyTorch has; expected.safetensors holds the values in single precision.
"""

import argparse
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "crates/sdpoint-exchange/tests/fixtures"
SEEDS = ROOT / "fuzz/corpus"
WIDTHS = [2, 4, 4, 8]
CLASSES = 7


class Block(nn.Module):
    def __init__(self, before, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        if before != width or stride > 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )


class Tiny(nn.Module):
    """torchvision's names on a ResNet of basic blocks, one a stage."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        before = WIDTHS[0]
        for stage, width in enumerate(WIDTHS):
            block = Block(before, width, 1 if stage == 0 else 2)
            self.add_module(f"layer{stage + 1}", nn.Sequential(block))
            before = width
        self.fc = nn.Linear(before, CLASSES)


torch.manual_seed(0)
net = Tiny()
for module in net.modules():
    if isinstance(module, nn.BatchNorm2d):
        module.running_mean.normal_()
        module.running_var.uniform_(0.5, 2.0)
        nn.init.uniform_(module.weight, 0.5, 1.5)
        nn.init.normal_(module.bias)

FOLDER.mkdir(exist_ok=True)
state = net.state_dict()
floats = {name: value for name, value in state.items() if value.is_floating_point()}
save_file(floats, FOLDER / "expected.safetensors")

# The strides of a state dict are those of the model's memory format.
net.to(memory_format=torch.channels_last)
torch.save(net.state_dict(), FOLDER / "channels_last.pth")
torch.save(net.state_dict(), FOLDER / "protocol5.pt", pickle_protocol=5)

half = {name: value.to(torch.float16) for name, value in floats.items()}
save_file(half, FOLDER / "float16.safetensors")
torch.save({"model": {k: v.to(torch.bfloat16) for k, v in state.items()}}, FOLDER / "bfloat16.pt")

# What the authors' script leaves: names behind `module.`, an optimiser.
optimizer = torch.optim.SGD(net.parameters(), 0.0, momentum=0.9)
for parameter in net.parameters():
    parameter.grad = torch.ones_like(parameter)
optimizer.step()
wrapped = OrderedDict((f"module.{name}", value) for name, value in state.items())
checkpoint = {
    "epoch": 3,
    "arch": "tiny",
    "state_dict": wrapped,
    "optimizer": optimizer.state_dict(),
    "args": argparse.Namespace(lr=0.1),
    "best_prec1": torch.tensor(12.5),
}
torch.save(checkpoint, FOLDER / "checkpoint.pth.tar", _use_new_zipfile_serialization=False)
doubles = OrderedDict((name, value.double()) for name, value in floats.items())
torch.save(doubles, FOLDER / "float64.legacy.pth", _use_new_zipfile_serialization=False)


def seed(name, content, **options):
    """A file of each format of torch.save, and the pickle in it."""
    for kind in ["zip", "legacy", "pickle"]:
        (SEEDS / f"checkpoint_{kind}").mkdir(parents=True, exist_ok=True)
    path = SEEDS / "checkpoint_zip" / name
    torch.save(content, path, **options)
    with zipfile.ZipFile(path) as archive:
        (SEEDS / "checkpoint_pickle" / name).write_bytes(archive.read(f"{name}/data.pkl"))
    if not options:
        old = SEEDS / "checkpoint_legacy" / name
        torch.save(content, old, _use_new_zipfile_serialization=False)


pair = torch.tensor([1.0, -2.0])
types = {
    "a": pair.bfloat16(),
    "b": pair.double(),
    "c": nn.Parameter(torch.ones(2, 2).t()),
    "d": pair.int(),
    "e": pair[1:],
}
state = OrderedDict({"module.conv1.weight": pair.half(), "module.bn1.num_batches_tracked": torch.tensor(3)})
optimizer = {"state": {0: {"momentum_buffer": None}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
nested = {"state_dict": state, "epoch": 3, "optimizer": optimizer, "args": argparse.Namespace(lr=0.1)}
seed("plain", OrderedDict(x=pair))
seed("nested", nested)
seed("types", {"model": types})
seed("protocol4", {"model": types}, pickle_protocol=4)
folder = SEEDS / "checkpoint_safetensors"
folder.mkdir(exist_ok=True)
matrix = torch.ones(2, 3, dtype=torch.bfloat16)
save_file({"x": pair, "y": matrix}, folder / "plain", metadata={"format": "pt"})
several = {"module.a": pair.half(), "module.b": pair.double(), "module.c": torch.tensor(1)}
save_file(several, folder / "types")
