"""The exported PyTorch module with the tools of PyTorch's users.

`torch.jit.trace`, both ways of `torch.onnx.export` and `torch.compile`, at every instance, compared
with what sdpoint computes. Each is made from three images and tried on one, too.
"""

import importlib.util
import logging
import warnings

import onnxruntime
import torch

from support import WORK, Worst, ours, random_model, sdpoint

# Compiling and dynamo take seconds for each instance, so these are few and small: without a stem
# and with one, in basic blocks and bottlenecks, post- and pre-activation, in sides that divide and
# in sides that do not.
NETWORKS = {
    "preresnet8": [(32, 32), (33, 45)],
    "resnet-mini-basic": [(33, 45)],
    "preresnet-mini": [(45, 33)],
}
# The C++ compiler is slow, too: only these are tested with `COSTLY_TOOLS`.
COSTLY = {
    ("preresnet8", (33, 45)): ["full", "1@0.75"],
    ("resnet-mini-basic", (33, 45)): ["stem@0.75"],
}
BATCH = torch.export.Dim("batch")


def load(model):
    """The exported module, as Python module and as network with the exported weights."""
    source, weights = WORK / "net.py", WORK / "weights.safetensors"
    sdpoint("export", model, "--python", "-o", source)
    sdpoint("export", model, "--format", "safetensors", "--instances", "all", "-o", weights)
    spec = importlib.util.spec_from_file_location("net", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, module.load(weights)


def to_onnx(**how):
    """A function that runs the network in ONNX Runtime, exported as `how` says."""

    def exported(net, images):
        path = WORK / "torch.onnx"
        names = {"input_names": ["images"], "output_names": ["logits"], "verbose": False}
        torch.onnx.export(net, (images,), path, **names, **how)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

    return exported


def exported_program(net, images):
    return torch.export.export(net, (images,), dynamic_shapes=({0: BATCH},)).module()


def in_inductor(net, images):
    torch._dynamo.reset()
    return torch.compile(net, fullgraph=True)


TOOLS = {
    "itself": lambda net, images: net,
    "torch.jit.trace": lambda net, images: torch.jit.trace(net, images, check_trace=False),
    "torch.onnx.export by tracing": to_onnx(
        dynamo=False, dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}}
    ),
    "torch.onnx.export by dynamo": to_onnx(dynamo=True, dynamic_shapes=({0: BATCH},)),
}
COSTLY_TOOLS = {"torch.export": exported_program, "torch.compile by inductor": in_inductor}


def check_module():
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    for name, sizes in NETWORKS.items():
        for size in sizes:
            check_network(name, size)


def check_network(name, size):
    model = random_model(name, size)
    module, net = load(model)
    torch.manual_seed(0)
    images = torch.randn(3, 3, *size)
    worst = Worst(1e-4)
    instances = ["full", *module.INSTANCES]
    expected = {instance: ours(model, instance, images) for instance in instances}
    for instance in instances:
        net.use(instance)
        costly = instance in COSTLY.get((name, size), [])
        tools = TOOLS | (COSTLY_TOOLS if costly else {})
        for what, tool in tools.items():
            for batch, run in tried(tool, net, images):
                where = f"{instance}, {len(batch)} images"
                worst.compare(what, where, run, expected[instance][: len(batch)])
    check_switching(net, images, expected, worst)
    worst.report(f"module of {name} at {size[0]}x{size[1]}, {len(instances)} instances")


def tried(tool, net, images):
    """The batches to compare, each with a call that computes its logits."""
    made = []

    def run(batch):
        with torch.no_grad():
            if not made:
                made.append(tool(net, images))
            return made[0](batch)

    return [(batch, lambda batch=batch: run(batch)) for batch in [images, images[:1]]]


def check_switching(net, images, expected, worst):
    """`torch.compile` of one network that switches between all instances."""
    torch._dynamo.reset()
    limit = len(expected) + 1
    adjustable = torch.compile(net, backend="aot_eager", fullgraph=True, recompile_limit=limit)
    for instance in expected:

        def run():
            net.use(instance)
            with torch.no_grad():
                return adjustable(images)

        worst.compare("torch.compile by aot_eager", instance, run, expected[instance])
