"""What a run says of itself: sums of an epoch, `metrics.jsonl`, progress."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from torch import Tensor

from .files import write_aside


class Sums:
    """What an epoch's metrics are made of; on the device, to wait for nothing."""

    def __init__(self) -> None:
        self.loss: Tensor | float = 0.0
        self.right: Tensor | float = 0.0
        self.count = 0
        self.drawn: Counter[str] = Counter()

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor, instances: Iterable[str]) -> None:
        """A batch and the instances that were trained on it."""
        self.loss = self.loss + loss.double() * len(labels)
        self.right = self.right + (logits.argmax(1) == labels).sum().double()
        self.count += len(labels)
        self.drawn.update(instances)

    def totals(self) -> list[float]:
        """Loss, right guesses and images."""
        return [float(self.loss), float(self.right), float(self.count)]

    def restore(self, totals: list[float], drawn: dict[str, int]) -> None:
        """Restores the results of `totals` and `drawn`."""
        self.loss, self.right, count = totals
        self.count, self.drawn = int(count), Counter(drawn)


class Metrics:
    """`metrics.jsonl`, a line an epoch, and TensorBoard."""

    def __init__(self, folder: Path, step: int, tensorboard: bool) -> None:
        self.path = folder / "metrics.jsonl"
        self._cut(step)
        self.board = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise ValueError("--tensorboard needs: pip install tensorboard") from error
            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step)

    def _cut(self, step: int) -> None:
        """Drops lines from after the checkpoint: their epochs are run again."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text().splitlines(keepends=True):
            # A run that was killed may have left a part of a line, the last.
            if not line.endswith("\n") or json.loads(line)["step"] > step:
                break
            kept.append(line)
        write_aside(self.path, lambda path: path.write_text("".join(kept)))

    def write(self, line: dict[str, Any]) -> None:
        """An epoch's metrics."""
        with open(self.path, "a") as file:
            file.write(json.dumps(line) + "\n")
        test = f", test accuracy of full {line['test_accuracy']:.2%}" if "test_loss" in line else ""
        print(
            f"epoch {line['epoch']}: loss {line['train_loss']:.4f}, accuracy "
            f"{line['train_accuracy']:.2%}{test}, {line['images_per_second']:.0f} images/s",
            flush=True,
        )
        if self.board:
            for name, value in line.items():
                if isinstance(value, (int, float)):
                    self.board.add_scalar(name, value, line["step"])

    def close(self) -> None:
        """Finishes TensorBoard's file."""
        if self.board:
            self.board.close()


class Progress:
    """How far a run is: one line on a terminal, elsewhere a line a minute.

    It counts from the step at which this process began, so that a resumed run has its
    own speed.
    """

    def __init__(
        self, step: int, total: int, steps_per_epoch: int, batch: int, stream: TextIO | None = None
    ) -> None:
        self.first = self.done = step
        self.total, self.steps_per_epoch, self.batch = total, steps_per_epoch, batch
        self.stream = sys.stderr if stream is None else stream
        self.terminal = self.stream.isatty()
        self.started = self.shown = time.monotonic()

    def step(self, sums: Sums) -> None:
        """A step is done; shows the line if it is due."""
        self.done += 1
        now = time.monotonic()
        # The loss is read from the device when it is shown: each time the device waits.
        if now - self.shown < (1.0 if self.terminal else 60.0):
            return
        self.shown = now
        text = self.text(now - self.started, *sums.totals())
        start, end = ("\r\x1b[K", "") if self.terminal else ("", "\n")
        self.stream.write(f"{start}{text}{end}")
        self.stream.flush()

    def text(self, seconds: float, loss: float, right: float, count: float) -> str:
        """The line after some seconds, with the sums of the epoch so far."""
        pace = (self.done - self.first) / max(seconds, 1e-9)
        epoch, step = divmod(self.done - 1, self.steps_per_epoch)
        left = (self.total - self.done) / pace
        return (
            f"epoch {epoch + 1}, step {step + 1} of {self.steps_per_epoch}: loss "
            f"{loss / count:.4f}, accuracy {right / count:.2%}, {pace * self.batch:.0f} images/s, "
            f"{duration(left)} left"
        )

    def clear(self) -> None:
        """Makes room on a terminal for a line of another kind."""
        if self.terminal:
            self.stream.write("\r\x1b[K")
            self.stream.flush()


def duration(seconds: float) -> str:
    """Seconds in the units that people use.

    >>> duration(42), duration(200), duration(10_000)
    ('42 s', '3 min', '2 h 46 min')
    """
    minutes = int(seconds) // 60
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
