"""Exported ONNX files in ONNX Runtime, OpenVINO, rten and tract.

Small networks of every kind, in every instance, at sides that divide evenly and at sides that do
not, for one image and for three. What a runtime computes is compared with what sdpoint does.
"""

import json
import subprocess

import numpy as np
import onnx
import onnxruntime
import openvino
import torch

from support import PROGRAMS, WORK, Worst, ours, random_model, sdpoint

EVEN_AND_ODD = [(32, 32), (33, 33), (31, 45), (64, 64), (65, 65)]
NETWORKS = {
    "preresnet8": EVEN_AND_ODD,
    "preresnet20": [(32, 32), (33, 33), (31, 45)],
    "preresnet20-exits": [(32, 32), (33, 33)],
    "preresnet20-exit1": [(32, 32), (33, 33)],
    "wrn10-2": EVEN_AND_ODD,
    "resnext29_2x4d": [(33, 33)],
    "resnet-mini": EVEN_AND_ODD,
    "resnet-mini-basic": [*EVEN_AND_ODD, (224, 224)],
    "resnext-mini": EVEN_AND_ODD,
    "preresnet-mini": [*EVEN_AND_ODD, (224, 224), (197, 243)],
    "mobilenet_v2": [(65, 45)],
}

# By default, OpenVINO computes in half precision on machines that support it.
SINGLE = {"INFERENCE_PRECISION_HINT": "f32"}


def rust(peer, paths, images):
    """The logits of several files in rten or tract: [file, image, class]."""
    program = PROGRAMS.parent / "peers/release/sdpoint-peers"
    batch, _, height, width = map(str, images.shape)
    command = [program, "logits", peer, batch, height, width, *paths]
    done = subprocess.run(command, input=images.numpy().tobytes(), capture_output=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.decode())
    return np.frombuffer(done.stdout, "<f4").reshape(len(paths), len(images), -1)


def check_files(model, peers=("rten", "tract")):
    """All files of a model in ONNX Runtime, in OpenVINO and in these Rust programs."""
    folder = WORK / f"{model.stem}-onnx"
    sdpoint("export", model, "--instances", "all", "-o", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    torch.manual_seed(0)
    images = torch.randn(3, 3, *manifest["preprocessing"]["size"])
    worst = Worst(1e-4)
    files = {entry["instance"]: folder / entry["file"] for entry in manifest["instances"]}
    expected = {instance: ours(model, instance, images) for instance in files}
    core = openvino.Core()
    for instance, path in files.items():
        onnx.checker.check_model(str(path), full_check=True)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        compiled = []
        for batch in [images, images[:1]]:
            where, wanted = f"{instance}, {len(batch)} images", expected[instance][: len(batch)]

            def in_openvino():
                if not compiled:
                    compiled.append(core.compile_model(core.read_model(path), "CPU", SINGLE))
                return compiled[0](batch.numpy())["logits"]

            run = lambda: session.run(["logits"], {"images": batch.numpy()})[0]
            worst.compare("ONNX Runtime", where, run, wanted)
            worst.compare("OpenVINO", where, in_openvino, wanted)
    for peer in peers:
        for batch in [images, images[:1]]:
            wanted = np.stack([expected[instance][: len(batch)] for instance in files])
            run = lambda: rust(peer, files.values(), batch)
            worst.compare(peer, f"{len(batch)} images", run, wanted)
    return worst, manifest


def check_runtimes():
    for name, sizes in NETWORKS.items():
        for size in sizes:
            model = random_model(name, size)
            worst, manifest = check_files(model)
            count = len(manifest["instances"])
            worst.report(f"{name} at {size[0]}x{size[1]}, {count} instances")
