"""The same training by `sdpoint.torch` and by `sdpoint train`, on CIFAR-10.

    python tests/compare_cifar10.py cifar10-train.tar.gz cifar10-test.tar.gz
    python tests/compare_cifar10.py TRAIN TEST --epochs 5 --only torch

The archives hold JPEG files in class folders under train/ and test/. PreResNet-20 is
trained by both for five epochs of the recipe cifar-cosine: the mean accuracy over all
instances has to agree within a point. Then a plain network is trained for five epochs
and adapted in two. It takes some forty minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Runs what is asked for and compares."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("train")
    p.add_argument("test")
    p.add_argument("--epochs", type=int, default=5)
    p.add_argument("--only", choices=("torch", "engine", "adapt"))
    p.add_argument("--out", type=Path, default=None, help="keep the runs here")
    p.add_argument("--seed", type=int, default=0)
    options = p.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="sdpoint-cifar10-"))
    images = out / "images"
    if not images.exists():
        for archive in (options.train, options.test):
            with tarfile.open(archive) as file:
                file.extractall(images, filter="data")
    common = ["--epochs", options.epochs, "--seed", options.seed, "--overwrite"]
    torch = [sys.executable, "-m", "sdpoint.torch.train", "--data", f"folder:{images}", "--arch"]
    torch += ["preresnet20", "--workers", 2]
    if options.only in (None, "torch"):
        run(*torch, *common, "--out", out / "torch")
    if options.only in (None, "engine"):
        engine = ROOT / "target/release/sdpoint"
        run(engine, "train", "--data", f"folder:{images}", "--network", "preresnet20", *common,
            "--out", out / "engine")  # fmt: skip
    if options.only in (None, "adapt"):
        run(*torch, *common, "--method", "plain", "--out", out / "plain")
        run(*torch, *common, "--epochs", 2, "--rate", 0.02, "--init",
            out / "plain/model.safetensors", "--out", out / "adapted")  # fmt: skip
    means = {}
    for name in ("engine", "torch", "plain", "adapted"):
        if (out / name / "curve.csv").exists():
            with open(out / name / "curve.csv") as file:
                rows = list(csv.DictReader(file))
            means[name] = sum(float(row["top1"]) for row in rows) / len(rows)
            print(f"{name:8} full {float(rows[0]['top1']):.2%}, mean of {len(rows)} instances "
                  f"{means[name]:.2%}")  # fmt: skip
    if {"engine", "torch"} <= means.keys():
        apart = abs(means["engine"] - means["torch"])
        print(f"{'ok' if apart <= 0.01 else 'FAIL'}: the means are {100 * apart:.2f} points apart")
        return int(apart > 0.01)
    return 0


def run(*command) -> None:
    """A command whose output is shown."""
    print("$", *command, flush=True)
    subprocess.run([str(part) for part in command], check=True)


if __name__ == "__main__":
    sys.exit(main())
