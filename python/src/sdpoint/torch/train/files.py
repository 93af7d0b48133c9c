"""Files of a run, written whole or not at all."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path

from ..measure import Accuracy


def write_curve(path: Path, rows: list[Accuracy]) -> None:
    """`curve.csv`, in the columns that `sdpoint train` writes."""

    def write(aside: Path) -> None:
        with open(aside, "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["instance", "point", "ratio", "macs", "share", "top1", "top5", "loss"])
            for row in rows:
                point, _, ratio = row.instance.partition("@")
                where = ["", ""] if row.instance == "full" else [point, ratio]
                table.writerow(
                    [row.instance, *where, row.macs, row.share, row.top1, row.top5, row.loss]
                )

    write_aside(path, write)


def write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file under another name and renames it once it is whole."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
