"""Exported models of realistic size: ONNX files, state dicts, class names."""

import json

import numpy as np
import onnx
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from check_module import load
from check_runtimes import check_files
from support import WORK, Worst, check, ours, randomised, sdpoint

# Names with all characters that JSON and other formats must escape.
ODD_NAMES = ['a "quote"', "back\\slash", "tab\tin it", "naïve 猫 🐈", "</script>", "'", "two words", "100%"]


def noise(folder):
    """Images for calibration, in two classes and without a test split.

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
    """A model with all instances of a network of torchvision."""
    net = randomised(torchvision.models.get_model(name, **options), 7)
    model, path = WORK / f"{stem}.safetensors", WORK / "net.pth"
    torch.save(net.state_dict(), path)
    sdpoint("import", path, "--network", name, "-o", model, *arguments)
    sdpoint("calibrate", model, "--data", data, "--ratios", "0.5,0.75")
    return net, model


def odd(data):
    """Image sizes that are rarely divisible, and unusual class names."""
    names = WORK / "names.txt"
    names.write_text("\n".join(ODD_NAMES) + "\n")
    arguments = ["--classes", names, "--input", "197x243"]
    return imported("resnet18", data, "odd", arguments, num_classes=len(ODD_NAMES))


def check_models():
    data = noise(WORK / "noise")
    models = [imported(name, data, name) for name in ["resnet18", "resnext50_32x4d"]]
    models.append(odd(data))
    sdpoint("train", "--network", "preresnet20", "--train-images", 500, "--epochs", 1, "--out", WORK / "run")
    models.append((None, WORK / "run/model.safetensors"))
    for net, model in models:
        check_model(net, model)


def check_model(net, model):
    # The Rust runtimes take minutes to optimise large networks; they have small ones elsewhere.
    worst, manifest = check_files(model, [])
    listed = json.loads(sdpoint("instances", model, "--json"))
    assert [i["instance"] for i in manifest["instances"]] == [i["instance"] for i in listed]
    name = manifest["network"]
    if model.stem == "odd":
        assert manifest["classes"] == ODD_NAMES, manifest["classes"]
        name = f"{name} at 197x243"
    check_metadata(model, manifest)
    worst.report(f"{name}, {len(listed)} instances")

    module, exported = load(model)
    torch.manual_seed(0)
    images = torch.randn(3, 3, *manifest["preprocessing"]["size"])
    worst = Worst(2e-5)
    for entry in listed:
        instance = entry["instance"]
        with torch.no_grad():
            run = lambda: exported.use(instance)(images)
            worst.compare("PyTorch module", instance, run, ours(model, instance, images))
    worst.report(f"{name}, {len(listed)} instances")
    check_training(exported, images)
    check_state_dicts(name, net, model, module)


def check_metadata(model, manifest):
    for entry in manifest["instances"]:
        path = WORK / f"{model.stem}-onnx" / entry["file"]
        about = {p.key: p.value for p in onnx.load(path).metadata_props}
        assert about["instance"] == entry["instance"], about
        assert about["network"] == manifest["network"], about
        assert json.loads(about["classes"]) == manifest["classes"]
        assert json.loads(about["preprocessing"]) == manifest["preprocessing"]
        assert int(about["macs"]) == entry["macs"]


def check_state_dicts(name, net, model, module):
    """An ordinary network loads one instance's file, bit by bit."""
    one = WORK / "one.safetensors"
    sdpoint("export", model, "--format", "safetensors", "--instance", "0@0.5", "-o", one)
    module.Network(instances=[]).load_state_dict(load_file(one))
    if net is None:
        return
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
