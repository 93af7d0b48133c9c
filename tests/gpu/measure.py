"""ResNet-50 on synthetic images: plain and wrapped, in mixed precision, compiled.

What has to hold on a GPU:

- a wrapped step costs on average its share of MACs, within 15 %;
- no instance costs more than 1.03 of `full`;
- 35 instances compile in at most three times the plain network's time, and the
  compiler's limit of recompilations is never reached.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import sdpoint.torch as sp
import torch
import torch._dynamo
import torch.nn.functional as F
from torchvision import models


class Report:
    """Numbers and checks; printed immediately, written at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.values, self.failed = folder, {}, 0

    def note(self, name: str, value, text: str | None = None) -> None:
        """Records a number."""
        self.values[name] = value
        print(f"      {name}: {text or value}", flush=True)

    def check(self, name: str, found: float, most: float, holds: bool) -> None:
        """Records a number with an upper limit; if `holds` is false, it is only reported."""
        good = found <= most
        self.values[name] = {"found": found, "most": most, "required": holds}
        word = "ok  " if good else ("FAIL" if holds else "note")
        print(f"{word}  {name}: {found:.3f}, at most {most}", flush=True)
        self.failed += holds and not good

    def write(self) -> None:
        """As JSON."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "report.json").write_text(json.dumps(self.values, indent=1))


class Trainer:
    """Steps of a network on one batch of random images."""

    def __init__(self, net, options) -> None:
        self.net, self.options = net, options
        self.device = torch.device(options.device)
        self.optimizer = torch.optim.SGD(net.parameters(), 1e-3, 0.9)
        shape = (options.batch, 3, options.size, options.size)
        self.images = torch.randn(shape, device=self.device)
        self.images = self.images.to(memory_format=torch.channels_last)
        self.labels = torch.randint(1000, (options.batch,), device=self.device)

    def step(self) -> float:
        """The time of a step in seconds."""
        self.synchronize()
        started = time.perf_counter()
        with torch.autocast(self.device.type, torch.bfloat16):
            loss = F.cross_entropy(self.net(self.images).float(), self.labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.synchronize()
        return time.perf_counter() - started

    def synchronize(self) -> None:
        """Waits for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def median(self, steps: int) -> float:
        """The median time of some steps after two warm-up steps."""
        times = [self.step() for _ in range(steps + 2)]
        return statistics.median(times[2:])


def network(options):
    """The plain network, on the device, in channels_last."""
    net = models.get_model(options.arch, weights=None)
    return net.to(options.device, memory_format=torch.channels_last).train()


def peak(options) -> float:
    """The peak memory since the last call, in MiB."""
    if options.device != "cuda":
        return 0.0
    most = torch.cuda.max_memory_allocated() / 2**20
    torch.cuda.reset_peak_memory_stats()
    return most


def steps_by_instance(trainer: Trainer, steps: int) -> dict[str, float]:
    """The median step of each instance, measured alternately."""
    net = sp.network.unwrapped(trainer.net)
    times: dict[str, list[float]] = {name: [] for name in net.instances}
    for number in range(steps + 2):
        for name in net.instances:
            net.instance(name)
            elapsed = trainer.step()
            if number >= 2:
                times[name].append(elapsed)
    net.instance(None)
    return {name: statistics.median(values) for name, values in times.items()}


def compare_steps(report: Report, options, gpu: bool) -> None:
    """Plain against wrapped, without compilation."""
    peak(options)
    plain = Trainer(network(options), options).median(options.steps)
    report.note("plain step, ms", 1e3 * plain)
    report.note("plain memory, MiB", peak(options))
    net = sp.wrap(network(options))
    times = steps_by_instance(Trainer(net, options), options.steps)
    report.note("wrapped memory, MiB", peak(options))
    report.note("steps of instances, ms", {k: 1e3 * v for k, v in times.items()}, "see the report")
    costs = net.cost(options.size)
    weights = net.draws.weights([sp.Instance.parse(name) for name in net.instances])
    total = sum(weights)
    share = sum(w * costs[n] for w, n in zip(weights, net.instances, strict=True))
    share /= total * costs["full"]
    mean = sum(w * times[n] for w, n in zip(weights, net.instances, strict=True)) / total
    report.note("mean share of MACs", share)
    report.check("mean wrapped step over its share of a plain one", mean / plain / share, 1.15, gpu)
    slowest = max(times.values()) / times["full"]
    report.check("slowest instance over full", slowest, 1.03, gpu)
    report.check("full over the plain network", times["full"] / plain, 1.03, gpu)


def compare_compilation(report: Report, options, gpu: bool) -> None:
    """Plain against wrapped, compiled: time to compile, graphs, steps."""
    import torch._inductor.config as inductor

    torch._dynamo.config.suppress_errors = False
    with inductor.patch(force_disable_caches=True):
        started = time.perf_counter()
        trainer = Trainer(torch.compile(network(options)), options)
        trainer.step()
        alone = time.perf_counter() - started
        plain = trainer.median(options.steps)
        report.note("plain compiled in, s", alone)
        torch.compiler.reset()
        counters = torch._dynamo.utils.counters
        counters.clear()
        net = sp.wrap(network(options)).compile()
        trainer = Trainer(net, options)
        started = time.perf_counter()
        for name in net.instances:
            net.instance(name)
            trainer.step()
        ours = time.perf_counter() - started
    graphs = counters["stats"]["unique_graphs"]
    report.note("graphs", graphs)
    report.check("graphs over stages", graphs / len(net.points), 2.0, True)
    report.check("all instances compiled, over the plain network", ours / alone, 3.0, gpu)
    times = steps_by_instance(trainer, max(2, options.steps // 2))
    report.note("compiled plain step, ms", 1e3 * plain)
    report.check("compiled full over compiled plain", times["full"] / plain, 1.2, False)
    slowest = max(times.values()) / times["full"]
    report.check("slowest compiled instance over full", slowest, 1.03, gpu)
    frames = counters["frames"]
    report.check("frames that were not compiled", frames["total"] - frames["ok"], 0, True)


def main() -> int:
    """The whole measurement."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    p.add_argument("--arch", default="resnet50")
    p.add_argument("--batch", type=int, default=128)
    p.add_argument("--size", type=int, default=224)
    p.add_argument("--steps", type=int, default=8)
    p.add_argument("--no-compile", action="store_true")
    p.add_argument("--out", type=Path, default=Path("tests/gpu/out"))
    options = p.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("there is no GPU: --device cpu tries the script without one", file=sys.stderr)
        return 2
    gpu = options.device == "cuda"
    report = Report(options.out)
    name = torch.cuda.get_device_name() if gpu else "CPU"
    report.note("device", name)
    report.note("torch", torch.__version__)
    # Shapes differ between instances, so cuDNN's autotuning would be measured.
    torch.backends.cudnn.benchmark = False
    try:
        compare_steps(report, options, gpu)
        net = sp.wrap(network(options))
        rows = net.profile(
            options.device, options.batch, options.size, rounds=options.steps,
            autocast=torch.bfloat16, channels_last=True,
        )  # fmt: skip
        table = {row.instance: [row.milliseconds, row.share, row.time_share] for row in rows}
        report.note("inference of instances: ms, share of MACs, share of time", table, "in report")
        if not options.no_compile:
            compare_compilation(report, options, gpu)
    finally:
        report.write()
    print(f"the report is in {options.out / 'report.json'}")
    return int(report.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
