#!/usr/bin/env python3
"""Runs the same networks in sdpoint and in other programs, alternately, and
prints the ratio of their times: below 1, sdpoint is faster.

    bench/peers/compare.py                      every row; half an hour on two cores
    bench/peers/compare.py --rows resnet50      rows whose name contains that
    bench/peers/compare.py --peers onnxruntime --rounds 9 --json

The first call creates a virtual environment beside this file from
requirements.txt, of some gigabytes; set PIP_EXTRA_INDEX_URL to an index of
CPU-only wheels to make it smaller. Needs python3, cargo and a C++ compiler.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
VENV = HERE / ".venv"
MODELS = HERE / ".models"


@dataclass(frozen=True)
class Row:
    network: str
    side: int
    batch: int
    train: bool
    # Our time over the peer's: the requirement, and the target.
    at_most: float
    aim: float

    @property
    def name(self):
        return f"{self.network}-{'train' if self.train else 'infer'}-{self.batch}"

    @property
    def title(self):
        work = "training step" if self.train else "inference"
        return f"{self.network}, {self.side}, batch {self.batch}, {work}"

    @property
    def peers(self):
        """The peers, the row's own first; a peer may have several modes."""
        if self.train:
            return {"PyTorch": ["train", "train-compiled"]}
        return {
            "ONNX Runtime": ["onnxruntime"],
            "PyTorch": ["torch", "torch-compiled"],
            "rten": ["rten"],
            "tract": ["tract"],
        }


ROWS = [
    Row("resnet50", 224, 1, False, 0.80, 0.60),
    Row("resnet50", 224, 8, False, 0.80, 0.60),
    Row("resnet18", 224, 1, False, 0.70, 0.45),
    Row("resnet18", 224, 8, False, 0.70, 0.45),
    Row("resnext50_32x4d", 224, 1, False, 0.90, 0.70),
    Row("preresnet20", 32, 128, False, 0.75, 0.50),
    Row("wrn16-4", 32, 128, False, 0.75, 0.50),
    Row("preresnet20", 32, 128, True, 0.65, 0.45),
    Row("wrn16-4", 32, 128, True, 0.70, 0.45),
    Row("resnet18", 224, 32, True, 0.75, 0.50),
]
INSTANCES = "resnet50-instances"
# The tolerance of an instance's time over its share of the MACs.
FACTOR, SLACK = 1.15, 0.02


def note(text):
    print(text, file=sys.stderr, flush=True)


def target(folder):
    return Path(os.environ.get("CARGO_TARGET_DIR", folder / "target"))


def prepare(args):
    """Builds the programs, if they are missing."""
    if not args.sdpoint:
        subprocess.run(["cargo", "build", "--release", "-p", "sdpoint"], cwd=ROOT, check=True)
        args.sdpoint = target(ROOT) / "release" / "sdpoint"
    if not (VENV / "complete").exists():
        note(f"making {VENV}")
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        pip = [VENV / "bin" / "python", "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "-r", HERE / "requirements.txt"], check=True)
        (VENV / "complete").touch()
    if not args.rust:
        subprocess.run(["cargo", "build", "--release"], cwd=HERE / "rust", check=True)
        args.rust = target(HERE / "rust") / "release" / "sdpoint-peers"


def python(way, row, args, model):
    numbers = [row.side, row.batch, args.threads]
    return [VENV / "bin" / "python", HERE / "peer.py", way, row.network, *map(str, numbers), model]


class Peer:
    """A process that times runs on request and sleeps otherwise."""

    def __init__(self, way, row, args, model):
        if way in ("rten", "tract"):
            numbers = [row.batch, row.side, args.threads]
            command = [args.rust, way, model, *map(str, numbers)]
        else:
            command = python(way, row, args, model)
        self.way = way
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        # Warmed up, or exited: torch.compile may lack a compiler.
        if self.process.stdout.readline() != "ready\n":
            message = self.process.stderr.read().strip().splitlines()[-1:]
            raise RuntimeError(f"{way} does not run: {' '.join(message)}")

    def measure(self, seconds):
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        milliseconds = float(self.process.stdout.readline())
        # Thread pools spin for a while before they sleep.
        time.sleep(0.3)
        return milliseconds

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def sdpoint(args, *arguments):
    command = [args.sdpoint, "profile", *arguments, "--threads", str(args.threads), "--json"]
    output = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return json.loads(output.stdout)


def ours(row, args):
    arguments = ["--network", row.network, "--batch", row.batch, "--seconds", args.seconds]
    if row.train:
        arguments.append("--train")
    return sdpoint(args, *map(str, arguments))[0]


def check_same(row, cost, args):
    """Both sides must compute the same network."""
    output = subprocess.run(
        [args.sdpoint, "instances", row.network, "--input", str(row.side), "--json"],
        stdout=subprocess.PIPE,
        check=True,
    )
    macs = json.loads(output.stdout)[0]["macs"]
    output = subprocess.run(
        [args.sdpoint, "networks", "--json"], stdout=subprocess.PIPE, check=True
    )
    listed = {entry["name"]: entry for entry in json.loads(output.stdout)}
    expected = {"parameters": listed[row.network]["parameters"], "macs": macs}
    if cost != expected:
        raise SystemExit(f"{row.network}: {cost} in PyTorch, {expected} in sdpoint")


def spread(values):
    """Median, minimum and maximum."""
    return [statistics.median(values), min(values), max(values)]


def export(row, args):
    """The row's network as an ONNX file, written on the first call, and the
    share of its MACs in layers for Winograd's algorithm."""
    MODELS.mkdir(exist_ok=True)
    model = MODELS / f"{row.network}-{row.side}-{row.batch}.onnx"
    cost = model.with_suffix(".json")
    if not cost.exists():
        note(f"exporting {model.name}")
        output = subprocess.run(
            python("export", row, args, model), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        if output.returncode:
            raise SystemExit(f"{row.title} cannot be exported: {output.stderr}")
        cost.write_text(output.stdout.splitlines()[0])
    cost = json.loads(cost.read_text())
    savable = cost.pop("savable") / cost["macs"]
    check_same(row, cost, args)
    return model, savable


def compare(row, args):
    """Times a row in rounds: sdpoint, a peer, sdpoint, the next peer, and so on."""
    model, savable = export(row, args)
    ways = []
    for peer in row.peers:
        for way in row.peers[peer] if peer in args.peers else []:
            try:
                ways.append((peer, Peer(way, row, args, model)))
            except RuntimeError as error:
                note(str(error))
    profile, times = [], {way.way: [] for _, way in ways}
    ratios = {way.way: [] for _, way in ways}
    for number in range(args.rounds):
        for _, way in ways:
            profile.append(ours(row, args))
            theirs = way.measure(args.seconds)
            times[way.way].append(theirs)
            ratios[way.way].append(profile[-1]["median_ms"] / theirs)
        note(f"{row.title}: round {number + 1} of {args.rounds}")
    for _, way in ways:
        way.close()
    peers = {}
    for peer, way in ways:
        found = {
            "way": way.way,
            "ms": spread(times[way.way]),
            "ratio": spread(ratios[way.way]),
        }
        # A peer counts with the fastest of its modes.
        if peer not in peers or found["ms"] < peers[peer]["ms"]:
            peers[peer] = found
    ms = spread([entry["median_ms"] for entry in profile])
    gflops = statistics.median(entry["gflops"] for entry in profile)
    peak = max(entry["peak_gflops"] for entry in profile)
    # All multiply-adds at the peak; and with a quarter of the multiplications
    # in layers for F(4x4, 3x3), which has 36 per tile instead of 144.
    direct = ms[0] * gflops / peak
    return {
        "row": row.name,
        "title": row.title,
        "peer": next(iter(row.peers)),
        "at_most": row.at_most,
        "aim": row.aim,
        "ms": ms,
        "gflops": gflops,
        "peak_gflops": peak,
        "limit_ms": direct,
        "winograd_limit_ms": direct * (1 - 0.75 * savable),
        "peers": peers,
    }


def instances(args):
    """Every instance's time relative to full, with its share of the MACs."""
    seconds = ["--seconds", str(args.seconds)]
    runs = [
        sdpoint(args, "--network", "resnet50", "--instances", "all", *seconds)
        for _ in range(args.rounds)
    ]
    rows = []
    for same in zip(*runs):
        full = [run[0] for run in runs]
        share = same[0]["macs"] / full[0]["macs"]
        of_full = spread([a["median_ms"] / b["median_ms"] for a, b in zip(same, full)])
        limit = FACTOR * share + SLACK
        rows.append(
            {"instance": same[0]["instance"], "share": share, "time": of_full, "at_most": limit}
        )
        note(f"{same[0]['instance']}: {of_full[0]:.3f} of full, at most {limit:.3f}")
    return {"row": INSTANCES, "instances": rows}


def markdown(results):
    columns = ["work", "sdpoint", "limit", "Winograd's", "peer", "its time"]
    columns += ["ratio", "spread", "at most", "aim"]
    table = ["| " + " | ".join(columns) + " |"]
    table.append("| --- | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    others = ["| work | peer | its time | ratio | spread |", "| --- | --- | ---: | ---: | ---: |"]
    for result in results:
        if result["row"] == INSTANCES:
            continue
        for name, peer in result["peers"].items():
            ratio, low, high = peer["ratio"]
            way = f"{name}, compiled" if peer["way"].endswith("compiled") else name
            theirs = [way, f"{peer['ms'][0]:.1f} ms", f"{ratio:.2f}", f"{low:.2f} to {high:.2f}"]
            if name == result["peer"]:
                keys = ["limit_ms", "winograd_limit_ms"]
                mine = [result["ms"][0], *(result[key] for key in keys)]
                mine = [f"{milliseconds:.1f} ms" for milliseconds in mine]
                aims = [f"{result['at_most']:.2f}", f"{result['aim']:.2f}"]
                table.append("| " + " | ".join([result["title"], *mine, *theirs, *aims]) + " |")
            else:
                others.append("| " + " | ".join([result["title"], *theirs]) + " |")
    text = [table] if len(table) > 2 else []
    text += [others] if len(others) > 2 else []
    for result in results:
        if result["row"] == INSTANCES:
            lines = ["| instance | share of MACs | time over full | spread | at most |"]
            lines.append("| --- | ---: | ---: | ---: | ---: |")
            for entry in result["instances"]:
                ratio, low, high = entry["time"]
                lines.append(
                    f"| `{entry['instance']}` | {entry['share']:.3f} | {ratio:.3f} "
                    f"| {low:.3f} to {high:.3f} | {entry['at_most']:.3f} |"
                )
            text.append(lines)
    return "\n\n".join("\n".join(lines) for lines in text)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [row.name for row in ROWS] + [INSTANCES]
    parser.add_argument("--rows", default="", help=f"names or parts of them: {', '.join(names)}")
    parser.add_argument(
        "--peers", default="ONNX Runtime,PyTorch,rten,tract", help="of %(default)s"
    )
    parser.add_argument("--rounds", type=int, default=5, help="default %(default)s")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each in a round")
    parser.add_argument("--threads", type=int, default=2, help="default %(default)s")
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    parser.add_argument("--sdpoint", type=Path, help="the program, if it is built already")
    parser.add_argument("--rust", type=Path, help="sdpoint-peers, if it is built already")
    args = parser.parse_args()
    args.peers = args.peers.split(",")
    chosen = [name for name in names if any(part in name for part in args.rows.split(","))]
    if not chosen:
        parser.error(f"no row is named so; there are {', '.join(names)}")
    prepare(args)
    results = [compare(row, args) for row in ROWS if row.name in chosen]
    if INSTANCES in chosen:
        results.append(instances(args))
    print(json.dumps(results, indent=1) if args.json else markdown(results))


if __name__ == "__main__":
    main()
