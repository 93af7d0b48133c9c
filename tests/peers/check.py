"""Tests import and export with the programs that they are for.

    tests/peers/run            all of it
    tests/peers/run import     one part: import, export
    tests/peers/run module     one check of export: models, runtimes, docs, module
"""

import json
import subprocess
import sys

import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

from support import PROGRAMS, WORK, check, difference, ours, randomised, sdpoint

RESNETS = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d"]
VISION = [*RESNETS, "mobilenet_v2"]
TIMM = {name: name for name in [*RESNETS, "resnext101_32x4d"]} | {"mobilenetv2_100": "mobilenet_v2"}


def saved(net, number):
    """Files of the network, in one format after another."""
    state = net.state_dict()
    match number % 4:
        case 0:
            path = WORK / "net.pth"
            torch.save(state, path)
        case 1:
            path = WORK / "net.safetensors"
            save_file(state, path)
        case 2:
            path = WORK / "net.legacy.pth"
            torch.save(state, path, _use_new_zipfile_serialization=False)
        case 3:
            # As the authors of stochastic downsampling save it.
            path = WORK / "checkpoint.pth.tar"
            parallel = nn.DataParallel(net)
            optimizer = torch.optim.SGD(parallel.parameters(), 0.0, momentum=0.9)
            for parameter in parallel.parameters():
                parameter.grad = torch.zeros_like(parameter)
            optimizer.step()
            content = {
                "epoch": 1,
                "arch": "net",
                "state_dict": parallel.state_dict(),
                "optimizer": optimizer.state_dict(),
            }
            torch.save(content, path)
    return path


class PreBlock(nn.Module):
    """A pre-activation block, whose shortcut may start behind the first norm."""

    def __init__(self, before, width, stride, bottleneck):
        super().__init__()
        out = 4 * width if bottleneck else width
        if bottleneck:
            shapes = [(before, width, 1, 1), (width, width, 3, stride), (width, out, 1, 1)]
        else:
            shapes = [(before, width, 3, stride), (width, width, 3, 1)]
        self.count = len(shapes)
        for number, (a, b, side, step) in enumerate(shapes, 1):
            self.add_module(f"bn{number}", nn.BatchNorm2d(a))
            self.add_module(f"conv{number}", nn.Conv2d(a, b, side, step, side // 2, bias=False))
        self.downsample = None
        if stride > 1 or before != out:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x):
        y = shared = self.bn1(x).relu()
        for number in range(1, self.count + 1):
            y = self.get_submodule(f"conv{number}")(y)
            if number < self.count:
                y = self.get_submodule(f"bn{number + 1}")(y).relu()
        return y + (x if self.downsample is None else self.downsample(shared))


class PreResNet(nn.Module):
    """A pre-activation ResNet with the names that the authors of stochastic downsampling use."""

    def __init__(self, blocks, bottleneck, classes=1000):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        before = 64
        for stage, count in enumerate(blocks):
            layer, width = nn.Sequential(), 64 << stage
            for number in range(count):
                stride = 2 if stage > 0 and number == 0 else 1
                layer.append(PreBlock(before, width, stride, bottleneck))
                before = 4 * width if bottleneck else width
            self.add_module(f"layer{stage + 1}", layer)
        self.bn2, self.fc = nn.BatchNorm2d(before), nn.Linear(before, classes)

    def forward(self, x):
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.bn2(x).relu().mean((2, 3)))


def check_import():
    nets = [(f"torchvision {name}", name, torchvision.models.get_model(name)) for name in VISION]
    nets += [(f"timm {name}", listed, timm.create_model(name)) for name, listed in TIMM.items()]
    deepest = ResNet(Bottleneck, [3, 8, 36, 3], groups=32, width_per_group=4)
    nets.append(("torchvision's ResNet as resnext152_32x4d", "resnext152_32x4d", deepest))
    small = torchvision.models.resnet18(num_classes=37)
    nets.append(("torchvision resnet18 of 37 classes", "resnet18", small))
    for name, blocks, bottleneck in [
        ("preresnet18-imagenet", [2, 2, 2, 2], False),
        ("preresnet101-imagenet", [3, 4, 23, 3], True),
    ]:
        nets.append((f"the authors' {name}", name, PreResNet(blocks, bottleneck)))
    for number, (what, name, net) in enumerate(nets):
        randomised(net, number)
        model = WORK / "imported.safetensors"
        path = saved(net, number)
        report = json.loads(sdpoint("import", path, "--network", name, "-o", model, "--json"))[0]
        assert report["left_over"] == [], report
        head = net.get_classifier() if hasattr(net, "get_classifier") else [*net.modules()][-1]
        assert report["classes"] == head.out_features, report
        for height, width in [(224, 224), (197, 243)]:
            images = torch.randn(2, 3, height, width)
            with torch.no_grad():
                expected = net(images)
            worst = difference(ours(model, "full", images), expected)
            check(f"{what} from {path.name} at {height}x{width}", worst, 1e-4)
        path.unlink()
    check_types()
    check_kinds()


def check_types():
    """Weights of other types, in each format: their rounded values are imported."""
    model = WORK / "imported.safetensors"
    images = torch.randn(2, 3, 224, 224)
    for number, dtype in enumerate([torch.float16, torch.bfloat16, torch.float64]):
        net = randomised(torchvision.models.resnet18(), 20 + number).to(dtype)
        for form in range(4):
            path = saved(net, form)
            sdpoint("import", path, "--network", "resnet18", "-o", model)
            with torch.no_grad():
                expected = net.float()(images)
            net.to(dtype)
            worst = difference(ours(model, "full", images), expected)
            check(f"torchvision resnet18 in {dtype} from {path.name}", worst, 1e-4)
            path.unlink()


def check_kinds():
    """Files with the weights at another level or under other names."""
    net = randomised(torchvision.models.resnet18(num_classes=10), 30)
    other = randomised(torchvision.models.resnet18(num_classes=10), 31)
    state, plain = net.state_dict(), other.state_dict()
    optimizer = torch.optim.AdamW(net.parameters())
    averaged = torch.optim.swa_utils.AveragedModel(net, use_buffers=True).state_dict()
    lightning = {f"model.{name}": value for name, value in plain.items()}
    lightning |= {f"ema_model.{name}": value for name, value in state.items()}
    lightning["criterion.weight"] = torch.ones(10)

    def renamed(classifier):
        return {name.replace("fc.", f"{classifier}."): value for name, value in state.items()}

    head = {("head." if "fc." in name else "backbone.") + name: state[name] for name in state}
    kinds = {
        "a whole module": net,
        "a whole module in DataParallel, beside its optimiser": {
            "model": nn.DataParallel(net),
            "optimizer": optimizer,
            "schedule": torch.optim.lr_scheduler.StepLR(optimizer, 1),
        },
        "the averages of torchvision's references": {"model": plain, "model_ema": averaged},
        "the averages of timm": {"state_dict": plain, "state_dict_ema": state, "arch": "resnet18"},
        "averages in a dictionary of Lightning": {"state_dict": lightning, "loops": {}},
        "names as torch.compile has them": {f"_orig_mod.{n}": v for n, v in state.items()},
        "names as mmpretrain has them": {"meta": {}, "state_dict": head},
        "a classifier behind a dropout": renamed("fc.1"),
        "a classifier of another name": renamed("last_linear"),
        "a network in parts": {
            "body": {n: v for n, v in state.items() if "fc." not in n},
            "fc": {"weight": state["fc.weight"], "bias": state["fc.bias"]},
        },
    }
    images = torch.randn(2, 3, 160, 160)
    model = WORK / "imported.safetensors"

    def compared(what, path, network, expected):
        sdpoint("import", path, *network, "-o", model)
        check(f"resnet18 from {what}", difference(ours(model, "full", images), expected), 1e-4)

    with torch.no_grad():
        expected = net(images)
    path = WORK / "kind.pth"
    for what, content in kinds.items():
        torch.save(content, path)
        compared(what, path, ["--network", "resnet18"], expected)
    for what, scripted in [
        ("TorchScript", torch.jit.script(net)),
        ("a traced module", torch.jit.trace(net, images)),
    ]:
        scripted.save(path)
        compared(what, path, ["--network", "resnet18"], expected)

    # One output with a sigmoid: the second of two classes.
    single = randomised(torchvision.models.resnet18(num_classes=1), 32)
    torch.save(single.state_dict(), path)
    sdpoint("import", path, "--network", "resnet18", "-o", model)
    found = torch.from_numpy(ours(model, "full", images).copy()).softmax(1)[:, 1:]
    with torch.no_grad():
        check("a sigmoid", difference(found, single(images).sigmoid()), 1e-4)

    # timm's folders: what they say is read, and refused where it is something else.
    folder = WORK / "timm"
    for name, options, allowed in [
        ("resnet18.a1_in1k", {}, True),
        ("resnetblur18", {}, False),
        ("resnet18", {"act_layer": "silu"}, False),
        ("resnet18", {"output_stride": 16}, False),
    ]:
        net = randomised(timm.create_model(name, num_classes=10, **options), 33)
        timm.models.save_for_hf(net, folder, safe_serialization=True)
        if allowed:
            with torch.no_grad():
                compared(f"the folder of {name}", folder, [], net(images))
            continue
        command = [PROGRAMS / "sdpoint", "import", folder, "-o", model]
        refused = subprocess.run(command, capture_output=True, text=True)
        right = refused.returncode == 4 and "config.json" in refused.stderr
        check(f"the folder of {name} with {options} is refused", 0.0 if right else 1.0, 0.0)


def check_export(parts):
    # Each needs programs that import does not need.
    from check_docs import check_docs
    from check_models import check_models
    from check_module import check_module
    from check_runtimes import check_runtimes

    checks = {
        "models": check_models,
        "runtimes": check_runtimes,
        "docs": check_docs,
        "module": check_module,
    }
    for part, run in checks.items():
        if part in parts or "export" in parts:
            run()


parts = set(sys.argv[2:]) or {"import", "export"}
with torch.inference_mode(False):
    if "import" in parts:
        check_import()
    if parts - {"import"}:
        check_export(parts)
if check.failed:
    sys.exit(f"{check.failed} checks failed")
print("all checks passed")
