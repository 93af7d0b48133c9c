"""The command line of the training program."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..network import METHODS
from .recipe import RECIPES

EXAMPLES = """
examples:
  python -m sdpoint.torch.train --data folder:photos --arch resnet18 --pretrained --epochs 20
  torchrun --nproc-per-node 8 -m sdpoint.torch.train --data folder:imagenet --arch resnet50 \\
      --recipe imagenet --amp bf16 --channels-last --compile --workers 12
  torchrun --nproc-per-node 8 -m sdpoint.torch.train --resume runs/resnet50

The folder of a run contains model.safetensors (for `sdpoint predict`), curve.csv,
metrics.jsonl and a checkpoint. docs/pytorch.md has the details.
"""


def parser() -> argparse.ArgumentParser:
    """All options; the data or the recipe sets those that are None."""
    p = argparse.ArgumentParser(
        "python -m sdpoint.torch.train",
        description="Train a network whose inference cost can be chosen afterwards.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "--data", help="folder:DIR, cifar10:DIR, cifar100:DIR, or fake:COUNT for random images"
    )
    p.add_argument(
        "--arch",
        default="resnet50",
        help="a name of torchvision, timm:NAME, preresnet20 or wrn16-4 (default: resnet50)",
    )
    p.add_argument("--out", help="folder for all results of the run (default: runs/ARCH)")
    p.add_argument("--resume", metavar="DIR", help="resume the run in this folder")
    p.add_argument("--overwrite", action="store_true", help="replace an earlier run in the folder")

    g = p.add_argument_group("recipe")
    g.add_argument(
        "--recipe",
        choices=RECIPES,
        help="hyperparameters (default: imagenet, or cifar-cosine for small images)",
    )
    g.add_argument("--epochs", type=int, help="number of epochs")
    g.add_argument("--batch", type=int, help="batch size of a step, over all processes")
    g.add_argument(
        "--accumulate",
        type=int,
        default=1,
        help="gradient accumulation: parts that a step is split into (default: 1)",
    )
    g.add_argument("--rate", "--lr", type=float, help="peak learning rate")
    g.add_argument("--warm-up", type=float, help="share of the steps in which the rate warms up")
    g.add_argument("--weight-decay", type=float, help="weight decay")
    g.add_argument("--no-norm-decay", action="store_true", help="no weight decay for batch norms")
    g.add_argument("--label-smoothing", type=float, help="label smoothing, from 0 to 1")
    g.add_argument(
        "--pretrained", action="store_true", help="start from the weights of torchvision or timm"
    )
    g.add_argument("--init", metavar="MODEL", help="start from the weights of a model file")
    g.add_argument("--seed", type=int, default=0, help="seed of everything random (default: 0)")

    g = p.add_argument_group("stochastic downsampling")
    g.add_argument(
        "--ratios", help="downsampling ratios (default: 0.5,0.75, or sdpoint+'s 0.5,0.6,0.75)"
    )
    g.add_argument(
        "--draw",
        help="distribution of instances: uniform (default), instances, cost:POWER, full:P or "
        "menu:INSTANCE=P,...",
    )
    g.add_argument(
        "--method",
        choices=("plain", *METHODS),
        default="sdpoint",
        help="sdpoint (default) draws an instance per step as in the paper, sdpoint+ mostly full "
        "and those of the first points (the best so far), plain always trains full, branched trains "
        "full and branches that learn from it",
    )
    g.add_argument("--branches", type=int, help="branches of a step (default: 4)")
    g.add_argument("--branch-weight", type=float, help="weight of their loss (default: 1)")
    g.add_argument("--distill", type=float, help="share of full's predictions in it (default: 0.5)")
    g.add_argument(
        "--distill-ramp",
        type=float,
        help="share of the run over which it rises from zero (default: a third)",
    )
    g.add_argument("--temperature", type=float, help="temperature of predictions (default: 1)")
    g.add_argument("--points", help="modules to downsample after, separated by commas")
    g.add_argument(
        "--no-engine", action="store_true", help="allow networks that sdpoint's engine cannot run"
    )
    g.add_argument(
        "--calibration-images",
        type=int,
        default=5000,
        help="training images for the batch-norm statistics (default: 5000)",
    )

    g = p.add_argument_group("machine")
    g.add_argument(
        "--device", default="auto", choices=("auto", "cpu", "cuda"), help="default: auto"
    )
    g.add_argument(
        "--amp", choices=("none", "bf16", "fp16"), default="none", help="mixed precision"
    )
    g.add_argument("--channels-last", action="store_true", help="NHWC memory format")
    g.add_argument("--compile", action="store_true", help="torch.compile")
    g.add_argument("--checkpointing", action="store_true", help="recompute stages to save memory")
    g.add_argument(
        "--sync-bn", action="store_true", help="synchronise batch norms over all processes"
    )
    g.add_argument("--ema", type=float, help="average the weights with this decay, such as 0.9999")
    g.add_argument(
        "--workers", type=int, default=4, help="processes of the data loader (default: 4)"
    )
    g.add_argument("--input", type=int, help="side of the images in pixels")

    g = p.add_argument_group("reports")
    g.add_argument(
        "--checkpoint-every",
        type=int,
        default=1000,
        help="steps between checkpoints (default: 1000)",
    )
    g.add_argument(
        "--validate-every",
        type=int,
        default=1,
        help="epochs between validations; 0 for none (default: 1)",
    )
    g.add_argument("--tensorboard", action="store_true", help="write TensorBoard's files")
    return p


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line; exits with a message if it is invalid."""
    p = parser()
    options = p.parse_args(arguments)
    if options.resume is None and options.data is None:
        p.error("--data is missing: give a data source such as folder:DIR")
    branched = [o for o in BRANCHING if getattr(options, o) is not None]
    if branched and options.method != "branched" and options.resume is None:
        flag = "--" + branched[0].replace("_", "-")
        p.error(f"{flag} needs --method branched")
    if options.accumulate < 1:
        p.error("--accumulate must be at least 1")
    return options


#: Options of branches, and what they set in `Branching`.
BRANCHING = {
    "branches": "branches",
    "branch_weight": "weight",
    "distill": "distill",
    "distill_ramp": "ramp",
    "temperature": "temperature",
}
#: Options that may change when a run is resumed.
MACHINE = ("workers", "device", "data", "tensorboard", "checkpoint_every")
#: Options that are not part of a run.
PLACE = ("resume", "overwrite", "out")


def resumed(
    options: argparse.Namespace, kept: Mapping[str, Any], folder: Path
) -> argparse.Namespace:
    """The options of a resumed run: those that it began with, and new values of MACHINE.

    Raises `ValueError` if another option is given with a new value.
    """
    defaults = parser()
    given = {k: v for k, v in vars(options).items() if v != defaults.get_default(k)}
    for name, value in given.items():
        if name in (*MACHINE, *PLACE) or value == kept.get(name):
            continue
        flag = "--" + name.replace("_", "-")
        raise ValueError(
            f"the run in '{folder}' began with {flag} {kept.get(name)} and cannot continue with "
            f"{value}: omit {flag}, or start another run from its model with --init"
        )
    return argparse.Namespace(**(vars(options) | kept | given))
