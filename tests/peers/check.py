"""Import and export against PyTorch, torchvision, timm, onnx and ONNX Runtime.

    tests/peers/run            all of it
    tests/peers/run import     one part: import, export
"""

import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

PROGRAMS = Path(sys.argv[1]).resolve()
PARTS = sys.argv[2:] or ["import", "export"]
WORK = Path(tempfile.mkdtemp(prefix="sdpoint-peers-"))

# Names with all that JSON and the formats around it have to escape.
ODD_NAMES = ['a "quote"', "back\\slash", "tab\tin it", "naïve 猫 🐈", "</script>", "'", " ", "100%"]

VISION = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d"]
TIMM = [*VISION, "resnext101_32x4d"]


def sdpoint(*arguments):
    command = [PROGRAMS / "sdpoint", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def ours(model, instance, images):
    """What sdpoint computes of [batch, colours, height, width]."""
    command = [PROGRAMS / "examples/logits", model, instance, *map(str, images.shape[2:])]
    data = images.numpy().astype("<f4").tobytes()
    logits = subprocess.run(command, input=data, check=True, capture_output=True).stdout
    return np.frombuffer(logits, "<f4").reshape(len(images), -1)


def difference(found, expected):
    """The largest difference, on the scale of the largest value."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def check(what, worst, allowed):
    print(f"{'ok  ' if worst <= allowed else 'FAIL'} {what}: {worst:.1e} of {allowed:.0e}", flush=True)
    if not worst <= allowed:
        check.failed += 1


check.failed = 0


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


def saved(net, number):
    """A file of the network, in one format after another."""
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
    nets += [(f"timm {name}", name, timm.create_model(name)) for name in TIMM]
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
        assert report["classes"] == net.fc.out_features, report
        for height, width in [(224, 224), (197, 243)]:
            images = torch.randn(2, 3, height, width)
            with torch.no_grad():
                expected = net(images)
            worst = difference(ours(model, "full", images), expected)
            check(f"{what} from {path.name} at {height}x{width}", worst, 1e-4)
        path.unlink()
    check_types()


def check_types():
    """Weights of other types, in each format: what they round to is what is imported."""
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


def noise(folder):
    """Images to calibrate on, in two classes and without a test split.

    Noise, as the images are that networks are compared on: others would meet
    variances that are not theirs, and rounding would grow.
    """
    generator = np.random.default_rng(0)
    for name in ["a", "b"]:
        (folder / "train" / name).mkdir(parents=True)
        for number in range(12):
            image = generator.integers(0, 256, (256, 256, 3), dtype=np.uint8)
            Image.fromarray(image).save(folder / "train" / name / f"{number}.png")
    return f"folder:{folder}"


def imported(name, data, stem, arguments=(), **options):
    """A model of torchvision's network with all instances."""
    net = randomised(torchvision.models.get_model(name, **options), 7)
    model = WORK / f"{stem}.safetensors"
    sdpoint("import", saved(net, 0), "--network", name, "-o", model, *arguments)
    sdpoint("calibrate", model, "--data", data, "--ratios", "0.5,0.75")
    return net, model


def odd(data):
    """Images of which few sides are divided evenly, and odd names of classes."""
    names = WORK / "names.txt"
    names.write_text("\n".join(ODD_NAMES) + "\n")
    arguments = ["--classes", names, "--input", "197x243"]
    return imported("resnet18", data, "odd", arguments, num_classes=len(ODD_NAMES))


def module_of(model):
    """The PyTorch module that is exported of a model."""
    source = WORK / "net.py"
    sdpoint("export", model, "--python", "-o", source)
    spec = importlib.util.spec_from_file_location("net", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    lines = len(source.read_text().splitlines())
    return module, lines


def check_export():
    data = noise(WORK / "noise")
    models = [imported(name, data, name) for name in ["resnet18", "resnext50_32x4d"]]
    models.append(odd(data))
    sdpoint("train", "--network", "preresnet20", "--train-images", 500, "--epochs", 1, "--out", WORK / "run")
    models.append((None, WORK / "run/model.safetensors"))
    for net, model in models:
        listed = json.loads(sdpoint("instances", model, "--json"))
        folder = WORK / f"{model.stem}-onnx"
        sdpoint("export", model, "--instances", "all", "-o", folder)
        manifest = json.loads((folder / "manifest.json").read_text())
        name = manifest["network"]
        if model.stem == "odd":
            assert manifest["classes"] == ODD_NAMES, manifest["classes"]
            name = f"{name} at 197x243"
        assert [i["instance"] for i in manifest["instances"]] == [i["instance"] for i in listed]
        size = manifest["preprocessing"]["size"]
        images = torch.randn(3, 3, *size)
        weights = WORK / "weights.safetensors"
        sdpoint("export", model, "--format", "safetensors", "--instances", "all", "-o", weights)
        module, lines = module_of(model)
        exported = module.load(weights)
        worst = {"ONNX Runtime": 0.0, "ONNX Runtime, one image": 0.0, "PyTorch module": 0.0}
        for entry in manifest["instances"]:
            instance, path = entry["instance"], folder / entry["file"]
            onnx.checker.check_model(str(path), full_check=True)
            about = {p.key: p.value for p in onnx.load(path).metadata_props}
            assert about["instance"] == instance and about["network"] == manifest["network"], about
            assert json.loads(about["classes"]) == manifest["classes"]
            assert json.loads(about["preprocessing"]) == manifest["preprocessing"]
            assert int(about["macs"]) == entry["macs"]
            expected = ours(model, instance, images)
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            for what, batch in [("ONNX Runtime", images), ("ONNX Runtime, one image", images[:1])]:
                found = session.run(["logits"], {"images": batch.numpy()})[0]
                worst[what] = max(worst[what], difference(found, expected[: len(batch)]))
            with torch.no_grad():
                found = exported.use(instance)(images)
            worst["PyTorch module"] = max(worst["PyTorch module"], difference(found, expected))
        count = len(listed)
        for what, value in worst.items():
            check(f"{name}, {count} instances, {what}", value, 1e-5 if "module" in what else 1e-4)
        print(f"     {name}: the module has {lines} lines")
        check_training(exported, images)

        # An ordinary network takes one instance's file, to the last bit.
        one = WORK / "one.safetensors"
        sdpoint("export", model, "--format", "safetensors", "--instance", "0@0.5", "-o", one)
        module.Network(instances=[]).load_state_dict(load_file(one))
        if net is not None:
            sdpoint("export", model, "--format", "safetensors", "--instance", "full", "-o", one)
            before = {key: value.clone() for key, value in net.state_dict().items()}
            net.load_state_dict(load_file(one))
            # Calibration with --ratios leaves the statistics of full alone.
            same = all(
                torch.equal(value, before[key])
                for key, value in net.state_dict().items()
                if not key.endswith("num_batches_tracked")
            )
            check(f"{name}, state dict of full in torchvision", 0.0 if same else 1.0, 0.0)


def check_training(net, images):
    """The exported module trains and calibrates."""
    before = {key: value.clone() for key, value in net.state_dict().items()}
    optimizer = torch.optim.SGD(net.parameters(), 0.001)
    net.train()
    for _ in range(2):
        net.draw()
        loss = nn.functional.cross_entropy(net(images), torch.tensor([0, 1, 2]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    statistics = [key for key in before if "running" in key or "instance" in key]
    after = net.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in statistics)
    net.instances = ["full", "0@0.5"]
    net.calibrate([images, images[:2]])
    after = net.state_dict()
    assert any(not torch.equal(after[key], before[key]) for key in statistics)
    assert not net.training


with torch.inference_mode(False):
    if "import" in PARTS:
        check_import()
    if "export" in PARTS:
        check_export()
if check.failed:
    sys.exit(f"{check.failed} checks failed")
print("all checks passed")
