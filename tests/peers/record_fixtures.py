"""Records the small checkpoints that the tests of sdpoint-exchange read, and smaller ones to
start a search for hostile files from.

    tests/peers/.venv/bin/python tests/peers/record_fixtures.py

One tiny ResNet with random weights and statistics, saved in every way that
PyTorch has; expected.safetensors holds the values in single precision.
"""

import argparse
import collections
import copy
import datetime
import enum
import io
import pickle
import sys
import types
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
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
        else:
            self.downsample = nn.Identity()

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + self.downsample(x)).relu()


class Tiny(nn.Module):
    """A ResNet with torchvision's names and one basic block per stage."""

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
        # As a constant that a state dict leaves out.
        self.register_buffer("scale", torch.ones(1), persistent=False)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


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

# The output of the authors' script: names with the prefix `module.`, an optimiser.
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

# Whole modules, as objects and as TorchScript.
torch.save({"epoch": 3, "model": nn.DataParallel(net)}, FOLDER / "module.pth")


def script(path):
    """A scripted module without its code, which is not needed to read weights."""
    scripted = copy.deepcopy(net)
    # TorchScript also saves what a state dict leaves out.
    del scripted.scale
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = io.BytesIO()
        torch.jit.save(torch.jit.script(scripted), content)
    with zipfile.ZipFile(content) as whole, zipfile.ZipFile(path, "w") as archive:
        for name in whole.namelist():
            if "/code/" not in name:
                archive.writestr(name, whole.read(name))


script(FOLDER / "script.pt")


class Color(enum.Enum):
    RED = 1


def foreign_class(module, name, base=object):
    """A class of a library that is not installed."""
    kind = type(name, (base,), {"__module__": module, "__qualname__": name})
    holder = types.ModuleType(module)
    setattr(holder, name, kind)
    for depth in range(1, module.count(".") + 2):
        part = ".".join(module.split(".")[:depth])
        sys.modules.setdefault(part, types.ModuleType(part))
    sys.modules[module] = holder
    return kind


def foreign(module, name, base=object):
    """An object of such a class, such as options and configurations."""
    return foreign_class(module, name, base)()


config = foreign("yacs.config", "CfgNode", dict)
config["optimizer"] = {"lr": 0.1}
config.frozen = True
beside = {
    "config": config,
    "omegaconf": foreign("omegaconf.dictconfig", "DictConfig"),
    "when": datetime.datetime(2024, 1, 1),
    "color": Color.RED,
    "recent": collections.deque([1.0, 2.0], maxlen=5),
    "counts": collections.Counter("abca"),
    "complex": 1j,
    "layout": torch.strided,
    "loss": nn.CrossEntropyLoss(torch.ones(2)),
    "sparse": torch.eye(2).to_sparse(),
    "expanded": torch.zeros(1).expand(1000),
    "generator": torch.get_rng_state()[:8].clone(),
    "args": argparse.Namespace(lr=0.1, path=Path("runs")),
}
lightning = {f"model.{name}": value for name, value in state.items()}
lightning["criterion.weight"] = torch.ones(CLASSES)
torch.save({"state_dict": lightning, "hyper_parameters": beside, "callbacks": {}}, FOLDER / "lightning.ckpt")

# Averages and weights with different values; the averages are expected.
averaged = torch.optim.swa_utils.AveragedModel(net, use_buffers=True).state_dict()
plain = {name: torch.zeros_like(value) for name, value in state.items()}
torch.save({"model": plain, "model_ema": averaged, "epoch": 1}, FOLDER / "ema.pth")

# Tensors and NumPy arrays written by pickle.dump.
(FOLDER / "state.pkl").write_bytes(pickle.dumps(dict(state), protocol=4))
arrays = {name: value.numpy() for name, value in floats.items()}
(FOLDER / "arrays.pkl").write_bytes(pickle.dumps({"model": arrays}, protocol=5))

# A tensor with an attribute, parameters, and one tensor that is sparse.
tagged = dict(state)
tagged["fc.weight"] = state["fc.weight"].clone()
tagged["fc.weight"].tag = 1
tagged["fc.bias"] = nn.Parameter(state["fc.bias"].clone())
torch.save(tagged, FOLDER / "attributes.pth", pickle_protocol=4)
sparse = {**state, "fc.weight": state["fc.weight"].to_sparse()}
torch.save(sparse, FOLDER / "sparse.pth")

# Old protocols: storages by texts, and arrays whose bytes are text.
torch.save(state, FOLDER / "protocol0.pth", pickle_protocol=0)
torch.save(state, FOLDER / "protocol0.legacy.pth", pickle_protocol=0, _use_new_zipfile_serialization=False)
torch.save({"model": arrays}, FOLDER / "arrays.pth")

# Arrays in the byte order of other machines, and in both orders of dimensions.
swapped = {
    name: np.asfortranarray(array).astype([">f4", ">f8", "<f4"][index % 3])
    for index, (name, array) in enumerate(arrays.items())
}
(FOLDER / "big_endian.pkl").write_bytes(pickle.dumps({"model": swapped}, protocol=5))
torch.save({"model": {name: array.astype(">f4") for name, array in arrays.items()}}, FOLDER / "big_endian.pth")

# A network in parts.
parts = {"features": {}, "classifier": {}}
for name, value in state.items():
    head = name.startswith("fc.")
    parts["classifier" if head else "features"][name.removeprefix("fc.")] = value
torch.save({"model": parts, "epoch": 1}, FOLDER / "parts.pth")


def variant(change):
    """The network with other modules, and the same tensors."""
    tensors = [*net.parameters(), *net.buffers()]
    other = copy.deepcopy(net, {id(tensor): tensor for tensor in tensors})
    return change(other) or other


def modules_of(net):
    """What other networks have as modules, and this one as functions."""
    net.maxpool = nn.MaxPool2d(3, 2, padding=1)
    net.layer1[0].act1 = nn.ReLU(inplace=True)
    net.avgpool = nn.AdaptiveAvgPool2d((1, 1))
    net.layer2[0].drop_path = nn.Identity()
    net.fc = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), net.fc)


def with_module(path, module):
    return lambda net: net.get_submodule(path).add_module("act", module)


def with_values(path, **values):
    return lambda net: net.get_submodule(path).__dict__.update(values)


def with_child(name, module):
    return lambda net: net.add_module(name, module)


def of_class(path, kind):
    def change(net):
        net.get_submodule(path).__class__ = kind

    return change


def with_classifier(*modules):
    """The classifier in a sequence, where it is None."""

    def change(net):
        net.fc = nn.Sequential(*[net.fc if module is None else module for module in modules])

    return change


def wrapped_in(*others):
    return lambda net: nn.Sequential(*[net if other is None else other for other in others])


def trainer(net):
    """As Lightning's modules, with a loss beside the network."""
    whole = nn.Module()
    whole.model = net
    whole.criterion = nn.CrossEntropyLoss(torch.ones(CLASSES))
    whole.focal = foreign("mine.losses", "FocalLoss", nn.Module)
    return whole


blur = foreign("timm.layers.blur_pool", "BlurPool2d", nn.Module)
normalize = foreign("torchvision.transforms.transforms", "Normalize", nn.Module)
select = foreign("timm.layers.adaptive_avgmax_pool", "SelectAdaptivePool2d", nn.Module)
select.pool_type = "max"
select.pool = nn.AdaptiveMaxPool2d(1)
standardised = foreign_class("timm.layers.std_conv", "StdConv2d", nn.Conv2d)
same = {
    "modules": modules_of,
    "softmax": wrapped_in(None, nn.Softmax(1)),
    "trainer": trainer,
    "synchronised": of_class("bn1", nn.SyncBatchNorm),
    "averagepool": with_child("pool", nn.AvgPool2d(7)),
    # What is pooled is not negative.
    "rectified": with_classifier(nn.ReLU(), None),
}
others = {
    "silu": with_module("layer1.0", nn.SiLU()),
    "leaky": with_module("layer1.0", nn.LeakyReLU(0.1)),
    "clipped": with_module("layer1.0", nn.ReLU6()),
    "linear": with_module("layer1.0", nn.Identity()),
    "blur": with_child("blur", blur),
    "epsilon": with_values("layer1.0.bn2", eps=1e-3),
    "stride": with_values("layer2.0.conv1", stride=(1, 1)),
    "dilation": with_values("layer4.0.conv2", dilation=(2, 2), padding=(2, 2)),
    "padding": with_values("conv1", padding=(2, 2)),
    "reflection": with_values("conv1", padding_mode="reflect"),
    "unpooled": with_child("maxpool", nn.Identity()),
    "ceil": with_child("maxpool", nn.MaxPool2d(3, 2, 1, ceil_mode=True)),
    "narrow": with_child("maxpool", nn.MaxPool2d(2, 2)),
    "maximum": with_child("global_pool", select),
    "standardised": of_class("layer3.0.conv1", standardised),
    "sigmoid": wrapped_in(None, nn.Sigmoid()),
    "normalised": wrapped_in(normalize, None),
    "rectified": with_classifier(None, nn.ReLU()),
    "rectifier": wrapped_in(None, nn.ReLU()),
    "rectifying": wrapped_in(nn.ReLU(), None),
}
variants = {"same": same, "others": others}
variants = {kind: {name: variant(change) for name, change in all.items()} for kind, all in variants.items()}
torch.save(variants, FOLDER / "variants.pth")


def seed(name, content, **options):
    """A file of each format of torch.save, and the pickle in it."""
    for kind in ["zip", "legacy", "pickle"]:
        (SEEDS / f"checkpoint_{kind}").mkdir(parents=True, exist_ok=True)
    path = SEEDS / "checkpoint_zip" / name
    torch.save(content, path, **options)
    with zipfile.ZipFile(path) as archive:
        (SEEDS / "checkpoint_pickle" / name).write_bytes(archive.read(f"{name}/data.pkl"))
    # Without checksums, which fuzzing would invalidate.
    torch.serialization.set_crc32_options(False)
    torch.save(content, path, **options)
    torch.serialization.set_crc32_options(True)
    # Of modules, the old format has the source code as well.
    if not options and not isinstance(content, nn.Module):
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
seed("module", nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1)))
seed("beside", {"net": {"x": pair}, **{key: beside[key] for key in ["config", "when", "counts", "sparse"]}})
folder = SEEDS / "checkpoint_safetensors"
folder.mkdir(exist_ok=True)
matrix = torch.ones(2, 3, dtype=torch.bfloat16)
save_file({"x": pair, "y": matrix}, folder / "plain", metadata={"format": "pt"})
several = {"module.a": pair.half(), "module.b": pair.double(), "module.c": torch.tensor(1)}
save_file(several, folder / "types")
