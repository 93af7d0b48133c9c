"""Runs one peer in a process of its own.

    peer.py PEER NETWORK SIDE BATCH THREADS MODEL

PEER is `onnxruntime`, `torch` or `torch-compiled` for inference, `train` or
`train-compiled` for training steps, `export`, which writes the ONNX file MODEL
and prints the network's cost, and `first`, which loads it into ONNX Runtime,
runs it once, and prints the time and the resident memory that this took.

Otherwise, for each line on standard input, a number of seconds, it runs for so long and
prints the median time of a run in milliseconds. Between lines it waits, and
none of its threads computes.
"""

import json
import statistics
import sys
import time

WARM_UP = 3


def onnxruntime_runner(model, images, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name, images = session.get_inputs()[0].name, images.numpy()
    return lambda: session.run(None, {name: images})


def resident():
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmRSS:"))
    return 1024 * int(line.split()[1])


def first(model, side, batch, threads):
    import numpy
    import onnxruntime

    images = numpy.ones((batch, 3, side, side), dtype=numpy.float32)
    bare, begin = resident(), time.perf_counter()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    session.run(None, {session.get_inputs()[0].name: images})
    milliseconds = 1e3 * (time.perf_counter() - begin)
    print(json.dumps({"ms": milliseconds, "bytes": resident() - bare}))


def torch_runner(network, images, compiled):
    import torch

    network.eval()
    network.to(memory_format=torch.channels_last)
    images = images.contiguous(memory_format=torch.channels_last)
    if compiled:
        import torch._inductor.config

        torch._inductor.config.freezing = True
        network = torch.compile(network)

    def run():
        with torch.inference_mode():
            network(images)

    return run


def training_runner(network, images, classes, compiled):
    import torch
    import torch.nn.functional as F

    network.train()
    network.to(memory_format=torch.channels_last)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(len(images)) % classes
    # The learning rate is zero, as in sdpoint: only time matters.
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.0, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True
    )
    forward = torch.compile(network) if compiled else network

    def run():
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(forward(images), labels).backward()
        optimizer.step()

    return run


def export(network, images, model):
    import torch

    network.eval()
    torch.onnx.export(
        network, (images,), model, dynamo=True, external_data=False, input_names=["images"]
    )


def serve(run):
    for _ in range(WARM_UP):
        run()
    print("ready", flush=True)
    for line in sys.stdin:
        times, start = [], time.perf_counter()
        while len(times) < 3 or time.perf_counter() - start < float(line):
            begin = time.perf_counter()
            run()
            times.append(1e3 * (time.perf_counter() - begin))
        print(statistics.median(times), flush=True)


def main():
    peer, name, side, batch, threads, model = sys.argv[1:]
    side, batch, threads = int(side), int(batch), int(threads)
    if peer == "first":
        return first(model, side, batch, threads)
    import torch

    import networks

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    images = torch.randn(batch, 3, side, side)
    if peer == "onnxruntime":
        return serve(onnxruntime_runner(model, images, threads))
    network = networks.build(name)
    classes = network.fc.out_features
    if peer == "export":
        print(json.dumps(networks.cost(network, side)))
        return export(network, images, model)
    compiled = peer.endswith("compiled")
    if peer.startswith("train"):
        return serve(training_runner(network, images, classes, compiled))
    return serve(torch_runner(network, images, compiled))


if __name__ == "__main__":
    main()
