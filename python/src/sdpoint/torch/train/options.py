"""The command line of the training program."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .recipe import RECIPES

EXAMPLES = """
examples:
  python -m sdpoint.torch.train --data folder:photos --arch resnet18 --pretrained --epochs 20
  torchrun --nproc-per-node 8 -m sdpoint.torch.train --data folder:imagenet --arch resnet50 \\
      --recipe imagenet --amp bf16 --channels-last --compile --workers 12
  torchrun --nproc-per-node 8 -m sdpoint.torch.train --resume runs/resnet50

A run leaves model.safetensors (for `sdpoint predict`), curve.csv, metrics.jsonl and a
checkpoint in its folder.
"""


def parser() -> argparse.ArgumentParser:
    """All options; what is None is decided by the data or the recipe."""
    p = argparse.ArgumentParser(
        "python -m sdpoint.torch.train",
        description="Train a network whose cost is chosen at inference.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--data", help="folder:DIR, cifar10:DIR, cifar100:DIR or fake:COUNT")
    p.add_argument(
        "--arch", default="resnet50", help="torchvision's names, timm:NAME, preresnet20, wrn16-4"
    )
    p.add_argument("--out", help="the run's folder (runs/ARCH)")
    p.add_argument("--resume", metavar="DIR", help="go on with the run in this folder")
    p.add_argument("--overwrite", action="store_true", help="start anew in a folder that has a run")

    g = p.add_argument_group("recipe")
    g.add_argument("--recipe", choices=RECIPES, help="imagenet, or cifar-cosine for small images")
    g.add_argument("--epochs", type=int)
    g.add_argument("--batch", type=int, help="images of a step, over all processes")
    g.add_argument(
        "--accumulate", type=int, default=1, help="parts that a process cuts a step into"
    )
    g.add_argument("--rate", type=float)
    g.add_argument("--warm-up", type=float, help="part of the steps in which the rate rises")
    g.add_argument("--weight-decay", type=float)
    g.add_argument("--no-norm-decay", action="store_true", help="spare scales and shifts of norms")
    g.add_argument("--label-smoothing", type=float)
    g.add_argument("--pretrained", action="store_true", help="start from the library's weights")
    g.add_argument("--init", metavar="MODEL", help="start from a model file")
    g.add_argument("--seed", type=int, default=0)

    g = p.add_argument_group("stochastic downsampling")
    g.add_argument("--ratios", default="0.5,0.75")
    g.add_argument("--draw", default="uniform", help="uniform, instances, cost:POWER, full:P")
    g.add_argument("--method", choices=("sdpoint", "plain"), default="sdpoint")
    g.add_argument("--points", help="paths of modules, with commas, where downsampling may be")
    g.add_argument("--no-engine", action="store_true", help="allow what the engine cannot run")
    g.add_argument("--calibration-images", type=int, default=5000)

    g = p.add_argument_group("machine")
    g.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    g.add_argument("--amp", choices=("none", "bf16", "fp16"), default="none")
    g.add_argument("--channels-last", action="store_true")
    g.add_argument("--compile", action="store_true")
    g.add_argument("--checkpointing", action="store_true", help="recompute stages to save memory")
    g.add_argument("--sync-bn", action="store_true", help="batch norms over all processes")
    g.add_argument("--ema", type=float, help="keep averaged weights, such as 0.9999")
    g.add_argument("--workers", type=int, default=4)
    g.add_argument("--input", type=int, help="side of the images")

    g = p.add_argument_group("reports")
    g.add_argument("--checkpoint-every", type=int, default=1000, help="steps between checkpoints")
    g.add_argument("--validate-every", type=int, default=1, help="epochs; 0 never")
    g.add_argument("--tensorboard", action="store_true")
    return p


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Options from the command line, or an exit with what is wrong."""
    p = parser()
    options = p.parse_args(arguments)
    if options.resume is None and options.data is None:
        p.error("--data is missing: folder:DIR, say")
    if options.accumulate < 1:
        p.error("--accumulate is 1 or more")
    return options


#: What may change when a run is resumed.
MACHINE = ("workers", "device", "data", "tensorboard", "checkpoint_every")
#: What is about the command line itself.
PLACE = ("resume", "overwrite", "out")


def resumed(
    options: argparse.Namespace, kept: Mapping[str, Any], folder: Path
) -> argparse.Namespace:
    """The options of a run that goes on: those it began with, and MACHINE's from now on.

    Raises `ValueError` if others are given that it did not begin with.
    """
    defaults = parser()
    given = {k: v for k, v in vars(options).items() if v != defaults.get_default(k)}
    for name, value in given.items():
        if name in (*MACHINE, *PLACE) or value == kept.get(name):
            continue
        flag = "--" + name.replace("_", "-")
        raise ValueError(
            f"the run in '{folder}' began with {flag} {kept.get(name)} and cannot go on with "
            f"{value}: leave {flag} out, or start another run from its model with --init"
        )
    return argparse.Namespace(**(vars(options) | kept | given))
