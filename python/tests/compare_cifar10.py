"""The same training by `sdpoint.torch` and by `sdpoint train`, on CIFAR-10.

    python tests/compare_cifar10.py cifar10-train.tar.gz cifar10-test.tar.gz
    python tests/compare_cifar10.py TRAIN TEST --only torch engine --seeds 0 1 2
    python tests/compare_cifar10.py TRAIN TEST --images 10000 --test-images 2000

The archives hold JPEG files in class folders under train/ and test/. PreResNet-20 is
trained by both for five epochs of the recipe cifar-cosine: the mean accuracy over all
instances has to agree within a point, as a mean over the seeds. Then a plain network is
trained for five epochs and adapted in two. It takes some forty minutes on two idle cores;
fewer images and more seeds take less, and say the same less surely. What is done already
in the folder --out is not done again.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(os.environ.get("SDPOINT_PROGRAMS", ROOT / "target/release"))
KINDS = ("torch", "engine", "adapt")


def main() -> int:
    """Runs what is asked for and compares."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("train")
    p.add_argument("test")
    p.add_argument("--epochs", type=int, default=5)
    p.add_argument("--images", type=int, help="training images, as many of each class; all")
    p.add_argument("--test-images", type=int, help="test images, as many of each class; all")
    p.add_argument("--calibration-images", type=int, default=5000)
    p.add_argument("--only", choices=KINDS, nargs="+", default=KINDS)
    p.add_argument("--out", type=Path, default=None, help="keep the runs here")
    p.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = p.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="sdpoint-cifar10-"))
    images = prepared(out, options)
    for seed in options.seeds:
        train(out / f"seed{seed}", images, seed, options)
    return compared(out, options.seeds)


def prepared(out: Path, options: argparse.Namespace) -> Path:
    """The folder of images, unpacked, of some of them if so many are wanted."""
    everything = out / "everything"
    if not everything.exists():
        for archive in (options.train, options.test):
            with tarfile.open(archive) as file:
                file.extractall(everything, filter="data")
    counts = {"train": options.images, "test": options.test_images}
    images = out / "-".join(["images", *(str(count or "all") for count in counts.values())])
    for split, count in counts.items():
        classes = sorted(path for path in (everything / split).iterdir() if path.is_dir())
        for folder in classes:
            files = sorted(folder.iterdir())
            chosen = files[: count // len(classes)] if count else files
            into = images / split / folder.name
            into.mkdir(parents=True, exist_ok=True)
            for file in chosen:
                if not (into / file.name).exists():
                    os.link(file, into / file.name)
    return images


def train(out: Path, images: Path, seed: int, options: argparse.Namespace) -> None:
    """The runs of a seed."""
    common = ["--data", f"folder:{images}", "--seed", seed, "--overwrite"]
    common += ["--calibration-images", options.calibration_images]
    epochs = ["--epochs", options.epochs]
    torch = [sys.executable, "-m", "sdpoint.torch.train", "--arch", "preresnet20", "--workers", 2]
    # As the package does: all images are trained on, statistics are from unaltered ones.
    engine = [PROGRAMS / "sdpoint", "train", "--network", "preresnet20"]
    engine += ["--val-share", 0, "--statistics-from", "evaluation"]
    if "torch" in options.only:
        run(out / "torch", *torch, *common, *epochs)
    if "engine" in options.only:
        run(out / "engine", *engine, *common, *epochs)
    if "adapt" in options.only:
        run(out / "plain", *torch, *common, *epochs, "--method", "plain")
        plain = out / "plain/model.safetensors"
        run(out / "adapted", *torch, *common, "--epochs", 2, "--rate", 0.02, "--init", plain)


def run(out: Path, *command) -> None:
    """A command whose output is shown, unless its run is done already."""
    if (out / "curve.csv").exists():
        return
    command = [*map(str, command), "--out", str(out)]
    print("$", *command, flush=True)
    subprocess.run(command, check=True)


def compared(out: Path, seeds: Sequence[int]) -> int:
    """Prints a table; the exit code says whether both programs agree."""
    means: dict[str, list[float]] = {}
    for name in ("engine", "torch", "plain", "adapted"):
        for seed in seeds:
            path = out / f"seed{seed}" / name / "curve.csv"
            if not path.exists():
                continue
            with open(path) as file:
                accuracy = [float(row["top1"]) for row in csv.DictReader(file)]
            means.setdefault(name, []).append(mean(accuracy))
            print(
                f"seed {seed}  {name:8} full {accuracy[0]:.2%}, mean of {len(accuracy)} instances "
                f"{mean(accuracy):.2%}, least {min(accuracy):.2%}"
            )
    for name, values in means.items():
        spread = f", deviation {100 * stdev(values):.2f} points" if len(values) > 1 else ""
        print(f"{name:8} {mean(values):.2%} over {len(values)} seeds{spread}")
    if not {"engine", "torch"} <= means.keys():
        return 0
    apart = abs(mean(means["engine"]) - mean(means["torch"]))
    print(f"{'ok' if apart <= 0.01 else 'FAIL'}: the means are {100 * apart:.2f} points apart")
    return int(apart > 0.01)


if __name__ == "__main__":
    sys.exit(main())
