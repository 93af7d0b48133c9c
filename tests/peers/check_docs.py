"""Runs the Python code of docs/export.md.

What the page's `prepare` makes of a photo is compared, through the network, with `sdpoint predict`.
"""

import contextlib
import functools
import io
import json
import os
import re
import sys
import unittest.mock

import numpy as np
import torch
import torchvision
from PIL import Image

from support import WORK, check, random_model, sdpoint

PAGE = "docs/export.md"
SIZE = [32, 32]
NORMALISED = {"size": SIZE, "mean": [0.48, 0.46, 0.41], "std": [0.23, 0.22, 0.24], "train": "none"}
# One of each kind of resizing, each with another filter.
PREPROCESSINGS = [
    {"evaluate": "resize"},
    {"evaluate": {"center_crop": {"resize": 37}}, "interpolation": "bicubic"},
    {"evaluate": {"squash_crop": {"resize": [40, 35]}}, "interpolation": "lanczos"},
    {"evaluate": {"center_crop": {"resize": 32}}, "interpolation": "box"},
    # Crops beyond the image, at even and odd distances.
    {"evaluate": {"center_crop": {"resize": 21}}},
    {"size": [33, 48], "evaluate": {"center_crop": {"resize": 37}}},
    {"size": [48, 33], "evaluate": {"center_crop": {"resize": 40}}},
    {"size": [33, 48], "evaluate": {"squash_crop": {"resize": [26, 39]}}},
    {"evaluate": "resize", "interpolation": "nearest"},
    {"evaluate": "resize", "interpolation": "hamming"},
]


def blocks():
    """The page's blocks of Python, in order."""
    with open(PAGE) as page:
        return re.findall(r"```python\n(.*?)```", page.read(), re.DOTALL)


def run(block, names):
    """Runs a block; returns what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block, PAGE, "exec"), names)
    return printed.getvalue()


def probabilities(model, photo):
    """What sdpoint predicts, in the order of the classes."""
    arguments = ["--instance", "3@0.5", "--top", 10, "--json"]
    (answer,) = json.loads(sdpoint("predict", model, photo, *arguments))
    found = {guess["class"]: guess["probability"] for guess in answer["top"]}
    return np.array([found[f"class {number}"] for number in range(10)])


def softmax(logits):
    powers = np.exp(logits[0] - logits[0].max())
    return powers / powers.sum()


def check_docs():
    runtime, in_openvino, state_dict, module, tools = blocks()
    folder = WORK / "docs"
    folder.mkdir()
    before = os.getcwd()
    photo = folder / "photo.png"
    noise = np.random.default_rng(0).integers(0, 256, (67, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photo)
    for how in PREPROCESSINGS:
        model = random_model("preresnet20", how.get("size", SIZE), json.dumps(NORMALISED | how))
        sdpoint("export", model, "--instance", "3@0.5", "-o", folder / "half.onnx")
        expected = probabilities(model, photo)
        os.chdir(folder)
        names = {}
        printed = run(runtime, names)
        found = softmax(names["logits"])
        # Rounding may differ; the results of another filter would differ more.
        check(f"{PAGE}, {how}", float(np.abs(found - expected).max()), 5e-3)
        filter = names["how"]["interpolation"]
        other = names["how"] | {"interpolation": "bilinear" if filter == "nearest" else "nearest"}
        wrong = names["session"].run(None, {"images": names["prepare"](photo, other)})[0]
        assert np.abs(softmax(wrong) - expected).max() > 0.01, (how, softmax(wrong), expected)
        assert printed.strip() == f"class {expected.argmax()}", printed
        run(in_openvino, names)
        check(f"{PAGE}, OpenVINO", float(np.abs(softmax(names["logits"]) - found).max()), 1e-4)
        os.chdir(before)

    torch.save(torchvision.models.resnet18(num_classes=10).state_dict(), folder / "net.pth")
    imported = folder / "imported.safetensors"
    sdpoint("import", folder / "net.pth", "--network", "resnet18", "-o", imported)
    full = ["--format", "safetensors", "--instance", "full"]
    sdpoint("export", imported, *full, "-o", folder / "full.safetensors")
    model = random_model("preresnet20", SIZE)
    all = ["--format", "safetensors", "--instances", "all"]
    sdpoint("export", model, *all, "-o", folder / "weights.safetensors")
    sdpoint("export", model, "--python", "-o", folder / "net.py")
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    run(state_dict, {})
    torch.manual_seed(0)
    names = {"loader": [(torch.randn(4, 3, *SIZE), torch.arange(4))]}
    run(module, names)
    # The C++ compiler would take minutes for all instances; check_module tests some.
    quick = functools.partial(torch.compile, backend="aot_eager")
    with unittest.mock.patch("torch.compile", quick):
        run(tools, names)
    assert names["logits"].shape == (1, 10), names["logits"].shape
    sys.path.remove(str(folder))
    os.chdir(before)
    print(f"ok   {PAGE}: {len(blocks())} blocks of Python run")
