"""Checks what a short training left: files, table, JSON, and that they agree."""

import csv
import json
import struct
import sys
import xml.etree.ElementTree
from pathlib import Path

work = Path(sys.argv[1])
run = work / "run"


def check(good, what):
    if not good:
        sys.exit(f"check_training: {what}")


with open(run / "curve.csv", newline="") as file:
    curve = {row["instance"]: row for row in csv.DictReader(file)}
check("full" in curve and len(curve) >= 7, f"curve.csv lists {sorted(curve)}")

evaluated = {row["instance"]: row for row in json.loads((work / "evaluate.json").read_text())}
listed = {row["instance"]: row for row in json.loads((work / "instances.json").read_text())}
check(set(evaluated) == set(listed) == set(curve), "the instances differ between commands")
for name, row in evaluated.items():
    for key in ("point", "ratio", "macs", "share"):
        check(row[key] == listed[name][key], f"{name}: {key} differs between commands")
    check(row["macs"] == int(curve[name]["macs"]), f"{name}: MACs are not those of curve.csv")
    for key in ("top1", "top5", "loss"):
        check(abs(row[key] - float(curve[name][key])) < 1e-6, f"{name}: {key} is not that of curve.csv")
    check(0 < row["share"] <= 1 and 0 <= row["top1"] <= row["top5"] <= 1, f"{name}: {row}")
check(evaluated["full"]["top1"] > 0.15, "full has learnt nothing: 0.1 is guessing")

table = (work / "train.txt").read_text()
for name in curve:
    check(f"\n{name} " in table, f"the table lacks {name}")
for words in ("MACs", "top-1", "Pareto", "saved", "model.safetensors", "Next:"):
    check(words in table, f"the output lacks '{words}'")

epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
check([epoch["epoch"] for epoch in epochs] == [1, 2], "metrics.jsonl has not a line an epoch")
check(xml.etree.ElementTree.parse(run / "curve.svg").getroot().tag.endswith("svg"), "no SVG")

with open(run / "model.safetensors", "rb") as file:
    (length,) = struct.unpack("<Q", file.read(8))
    header = json.loads(file.read(length))
check("__metadata__" in header, "the model has no metadata")
check("conv1.weight" in header and header["conv1.weight"]["dtype"] == "F32", "no conv1.weight")
print(f"check_training: {len(curve)} instances agree in table, CSV, JSON and model")
