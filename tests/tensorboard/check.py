"""Compares the events of a run, as TensorBoard reads them, with its metrics."""

import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TAGS = {
    "loss/train": lambda line: line["train_loss"],
    "accuracy/train": lambda line: line["train_accuracy"],
    "rate": lambda line: line["rate"],
    "images_per_second": lambda line: line["images_per_second"],
    "epoch": lambda line: line["epoch"],
    "loss/full_train": lambda line: line["full"]["train_loss"],
    "accuracy/full_train": lambda line: line["full"]["train_accuracy"],
    "loss/full_val": lambda line: line["full"]["val_loss"],
    "accuracy/full_val": lambda line: line["full"]["val_accuracy"],
    "loss/full_test": lambda line: line["full"]["test_loss"],
    "accuracy/full_test": lambda line: line["full"]["test_accuracy"],
}


def check(good, what):
    if not good:
        sys.exit(f"tensorboard: {what}")


def read(folder):
    """The scalars of a run by tag, as pairs of step and value."""
    events = EventAccumulator(str(folder))
    events.Reload()
    scalars = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    return {tag: [(e.step, e.value) for e in found] for tag, found in scalars.items()}


def compare(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = read(folder)
    check(set(found) == set(TAGS), f"tags {sorted(found)}")
    for tag, value in TAGS.items():
        steps = [step for step, _ in found[tag]]
        check(steps == [line["step"] for line in lines], f"{tag} has steps {steps}")
        for (_, shown), line in zip(found[tag], lines, strict=True):
            check(math.isclose(shown, value(line), rel_tol=1e-6), f"{tag}: {shown} for {line}")
    return len(lines)


def main():
    sdpoint = sys.argv[1]
    with tempfile.TemporaryDirectory() as work:
        run = Path(work) / "run"
        train = "train --network preresnet8 --train-images 600 --epochs 2 --measure-every 1"
        subprocess.run([sdpoint, *train.split(), "--out", run], check=True, capture_output=True)
        check(compare(run) == 2, "two epochs")
        # What a killed run leaves: an event too few, and half of one.
        events = run / "events.out.tfevents.sdpoint"
        whole = events.read_bytes()
        for cut in (5, 300, len(whole) - 40):
            events.write_bytes(whole[:-cut])
            (run / "model.safetensors").unlink()
            resume = [sdpoint, "train", "--resume", run]
            subprocess.run(resume, check=True, capture_output=True)
            check(compare(run) == 2, f"two epochs after {cut} bytes were lost")
    print("tensorboard: all metrics are shown")


main()
