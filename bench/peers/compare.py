#!/usr/bin/env python3
"""Runs the same networks in sdpoint and in other programs, alternately, and
prints the ratio of their times: below 1, sdpoint is faster.

    bench/peers/compare.py                      every row; half an hour on two cores
    bench/peers/compare.py --rows resnet50      rows whose name contains that
    bench/peers/compare.py --peers PyTorch --rounds 9 --json
    bench/peers/compare.py --gate               exit code 1 if a row is over its limit
    bench/peers/compare.py --scaling            one thread over two, of both programs
    bench/peers/compare.py --isa avx2 --peers "ONNX Runtime,PyTorch"
                                                all held to AVX2 on a machine with AVX-512

The first call creates a virtual environment beside this file from
requirements.txt, of some gigabytes; set PIP_EXTRA_INDEX_URL to an index of
CPU-only wheels to make it smaller. Needs python3, cargo and a C++ compiler.
"""

import argparse
import json
import os
import shutil
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
HELD = HERE / ".held"
RUNTIME = ROOT / "bench" / "runtime"


@dataclass(frozen=True)
class Row:
    network: str
    side: int
    batch: int
    train: bool
    # Our time over the peer's with AVX-512: the requirement, and the target.
    avx512: tuple
    # The same with AVX2.
    avx2: tuple

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
    Row("resnet50", 224, 1, False, (0.80, 0.60), (0.90, 0.75)),
    Row("resnet50", 224, 8, False, (0.80, 0.60), (0.90, 0.75)),
    Row("resnet18", 224, 1, False, (0.70, 0.45), (0.62, 0.48)),
    Row("resnet18", 224, 8, False, (0.70, 0.45), (0.62, 0.48)),
    Row("resnext50_32x4d", 224, 1, False, (0.90, 0.70), (0.95, 0.85)),
    Row("preresnet20", 32, 128, False, (0.75, 0.50), (0.65, 0.50)),
    Row("wrn16-4", 32, 128, False, (0.75, 0.50), (0.50, 0.40)),
    Row("preresnet20", 32, 128, True, (0.65, 0.45), (0.55, 0.45)),
    Row("wrn16-4", 32, 128, True, (0.70, 0.45), (0.55, 0.45)),
    Row("resnet18", 224, 32, True, (0.75, 0.50), (0.55, 0.45)),
]
INSTANCES = "resnet50-instances"
# Time and memory of a process that loads ResNet-50 and answers once, and the
# largest allowed ratio of the times.
FIRST = "resnet50-first"
FIRST_AT_MOST = 0.5
# The tolerance of an instance's time over its share of the MACs.
FACTOR, SLACK = 1.15, 0.02


def note(text):
    print(text, file=sys.stderr, flush=True)


def target(folder):
    return Path(os.environ.get("CARGO_TARGET_DIR", folder / "target"))


def prepare(args):
    """Builds the programs, if they are missing."""
    if not args.sdpoint:
        subprocess.run(["cargo", "build", "--release", "-p", "sdpoint-cli"], cwd=ROOT, check=True)
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
    if not args.runtime:
        subprocess.run(["cargo", "build", "--release"], cwd=RUNTIME, check=True)
        args.runtime = target(RUNTIME) / "release" / "sdpoint-runtime-bench"


def hold_onnxruntime():
    """Makes a copy of ONNX Runtime that runs its kernels for AVX2, as it has no setting for
    that: where it reads which registers the system saves (`xgetbv`), it reads that there are
    none of AVX-512. Peers started from now on use the copy."""
    reads = bytes.fromhex("0f01d089c0")  # xgetbv; mov %eax, %eax
    avx = bytes.fromhex("b807000000")  # mov $7, %eax: x87, SSE and AVX
    packages = next((VENV / "lib").glob("python3*/site-packages"))
    version = next(packages.glob("onnxruntime-*.dist-info")).stem
    held = HELD / version
    if not held.exists():
        package = packages / "onnxruntime"
        library = next(package.glob("capi/onnxruntime_pybind11_state*.so"))
        code = library.read_bytes()
        if code.count(reads) != 2:
            sys.exit(f"{version} is none that this knows how to hold to AVX2")
        unfinished = HELD / "unfinished"
        shutil.copytree(package, unfinished / "onnxruntime", dirs_exist_ok=True)
        (unfinished / library.relative_to(packages)).write_bytes(code.replace(reads, avx))
        unfinished.rename(held)
    os.environ["PYTHONPATH"] = str(held)


def isa(args):
    """The instruction set that decides which limits hold."""
    if args.isa:
        return args.isa
    cpu = Path("/proc/cpuinfo")
    return "avx512" if cpu.exists() and "avx512f" in cpu.read_text() else "avx2"


def python(way, row, threads, model):
    numbers = [row.side, row.batch, threads]
    return [VENV / "bin" / "python", HERE / "peer.py", way, row.network, *map(str, numbers), model]


class Peer:
    """A process that times runs on request and sleeps otherwise."""

    def __init__(self, way, row, args, threads, model):
        if way in ("rten", "tract"):
            numbers = [row.batch, row.side, threads]
            command = [args.rust, way, model, *map(str, numbers)]
        else:
            command = python(way, row, threads, model)
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


def sdpoint(args, threads, *arguments):
    command = [args.sdpoint, "profile", *arguments, "--threads", str(threads), "--json"]
    output = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return json.loads(output.stdout)


def ours(row, args, threads):
    arguments = ["--network", row.network, "--batch", row.batch, "--seconds", args.seconds]
    if row.train:
        arguments.append("--train")
    return sdpoint(args, threads, *map(str, arguments))[0]


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
            python("export", row, args.threads, model), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
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
                ways.append((peer, Peer(way, row, args, args.threads, model)))
            except RuntimeError as error:
                note(str(error))
    profile, times = [], {way.way: [] for _, way in ways}
    ratios = {way.way: [] for _, way in ways}
    for number in range(args.rounds):
        for _, way in ways:
            profile.append(ours(row, args, args.threads))
            theirs = way.measure(args.seconds)
            times[way.way].append(theirs)
            ratios[way.way].append(profile[-1]["median_ms"] / theirs)
        note(f"{row.title}: round {number + 1} of {args.rounds}")
    for _, way in ways:
        way.close()
    if not ways:
        raise SystemExit(f"{row.title}: no peer can be measured")
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
    at_most, aim = row.avx512 if isa(args) == "avx512" else row.avx2
    return {
        "row": row.name,
        "title": row.title,
        "peer": next(iter(row.peers)),
        "at_most": at_most,
        "aim": aim,
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
        sdpoint(args, args.threads, "--network", "resnet50", "--instances", "all", *seconds)
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


def first(args):
    """Loads ResNet-50 and answers once, in processes of their own by turns: the
    time of both together, and the resident memory above that of the program."""
    row = ROWS[0]
    onnx, _ = export(row, args)
    ours = MODELS / "resnet50.safetensors"
    if not ours.exists():
        subprocess.run([args.runtime, "model", ours], check=True)
    threads = ["--threads", str(args.threads)]
    runs = []
    for _ in range(args.rounds):
        pair = []
        commands = [args.runtime, "first", ours, *threads], python("first", row, args.threads, onnx)
        for command in commands:
            output = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            pair.append(json.loads(output.stdout))
        runs.append(pair)
    return {
        "row": FIRST,
        "ms": [spread([run[i]["ms"] for run in runs]) for i in range(2)],
        "ratio": spread([run[0]["ms"] / run[1]["ms"] for run in runs]),
        "bytes": [spread([run[i]["bytes"] for run in runs]) for i in range(2)],
        "at_most": FIRST_AT_MOST,
    }


def scaling(row, args):
    """One thread's time over two threads', of sdpoint and of the row's peer."""
    model, _ = export(row, args)
    peer, ways = next(iter(row.peers.items()))
    processes = [Peer(ways[0], row, args, threads, model) for threads in (1, 2)]
    ours_scale, peer_scale = [], []
    for number in range(args.rounds):
        one, two = [ours(row, args, threads)["median_ms"] for threads in (1, 2)]
        ours_scale.append(one / two)
        one, two = [process.measure(args.seconds) for process in processes]
        peer_scale.append(one / two)
        note(f"{row.title}: round {number + 1} of {args.rounds}")
    for process in processes:
        process.close()
    scales = {"sdpoint": spread(ours_scale), "its": spread(peer_scale)}
    return {"row": row.name, "title": row.title, "peer": peer, **scales}


def scaling_table(results):
    table = ["| work | sdpoint | spread | peer | its | spread |"]
    table.append("| --- | ---: | ---: | --- | ---: | ---: |")
    for result in results:
        cells = [result["title"]]
        for name in ("sdpoint", "its"):
            scale, low, high = result[name]
            cells += [result["peer"]] if name == "its" else []
            cells += [f"{scale:.2f}", f"{low:.2f} to {high:.2f}"]
        table.append("| " + " | ".join(cells) + " |")
    return "\n".join(table)


def over_their_limits(results):
    """What `--gate` complains of."""
    faults = []
    for result in results:
        if result["row"] == INSTANCES:
            faults += [
                f"{entry['instance']}: {entry['time'][0]:.3f} of full, at most {entry['at_most']:.3f}"
                for entry in result["instances"]
                if entry["time"][0] > entry["at_most"]
            ]
            continue
        if result["row"] == FIRST:
            ratio = result["ratio"][0]
        elif result["peer"] in result["peers"]:
            ratio = result["peers"][result["peer"]]["ratio"][0]
        else:
            # Nothing was measured that the limit is about, so it is not kept either.
            faults.append(f"{result['row']}: {result['peer']} was not measured")
            continue
        # Also true of what is not a number.
        if not ratio <= result["at_most"]:
            faults.append(f"{result['row']}: ratio {ratio:.3f}, at most {result['at_most']:.2f}")
    return faults


def markdown(results):
    columns = ["work", "sdpoint", "limit", "Winograd's", "peer", "its time"]
    columns += ["ratio", "spread", "at most", "aim"]
    table = ["| " + " | ".join(columns) + " |"]
    table.append("| --- | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    others = ["| work | peer | its time | ratio | spread |", "| --- | --- | ---: | ---: | ---: |"]
    for result in results:
        if result["row"] in (INSTANCES, FIRST):
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
        elif result["row"] == FIRST:
            lines = ["| ResNet-50 | sdpoint | ONNX Runtime | ratio | spread | at most |"]
            lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
            ratio, low, high = result["ratio"]
            mine, theirs = [f"{ms[0]:.0f} ms" for ms in result["ms"]]
            lines.append(
                f"| load and first answer | {mine} | {theirs} | {ratio:.2f} "
                f"| {low:.2f} to {high:.2f} | {result['at_most']:.2f} |"
            )
            mine, theirs = [of[0] / 1e6 for of in result["bytes"]]
            lines.append(
                f"| resident memory for it | {mine:.0f} MB | {theirs:.0f} MB | {mine / theirs:.2f} | | |"
            )
            text.append(lines)
    return "\n\n".join("\n".join(lines) for lines in text)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [row.name for row in ROWS] + [INSTANCES, FIRST]
    parser.add_argument("--rows", default="", help=f"names or parts of them: {', '.join(names)}")
    parser.add_argument(
        "--peers", default="ONNX Runtime,PyTorch,rten,tract", help="of %(default)s"
    )
    parser.add_argument("--rounds", type=int, default=5, help="default %(default)s")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each in a round")
    parser.add_argument("--threads", type=int, default=2, help="default %(default)s")
    parser.add_argument(
        "--isa",
        choices=["avx512", "avx2"],
        help="hold sdpoint, PyTorch and ONNX Runtime to this instruction set",
    )
    parser.add_argument("--gate", action="store_true", help="exit with 1 if a row is over its limit")
    parser.add_argument(
        "--scaling", action="store_true", help="print one thread's time over two threads' instead"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    parser.add_argument("--sdpoint", type=Path, help="the program, if it is built already")
    parser.add_argument("--rust", type=Path, help="sdpoint-peers, if it is built already")
    parser.add_argument("--runtime", type=Path, help="the program of bench/runtime, likewise")
    args = parser.parse_args()
    known = sorted({peer for row in ROWS for peer in row.peers})
    args.peers = args.peers.split(",")
    for peer in args.peers:
        if peer not in known:
            parser.error(f"--peers: there is no {peer!r}; there are {', '.join(known)}")
    if args.rounds < 1:
        parser.error("--rounds must be at least 1")
    if args.gate and args.scaling:
        parser.error("--gate is about limits, which --scaling has none of")
    chosen = [name for name in names if any(part in name for part in args.rows.split(","))]
    if not chosen:
        parser.error(f"no row is named so; there are {', '.join(names)}")
    if args.isa == "avx2":
        os.environ.update(
            SDPOINT_ISA="avx2", ATEN_CPU_CAPABILITY="avx2", ONEDNN_MAX_CPU_ISA="AVX2"
        )
    elif args.isa:
        os.environ["SDPOINT_ISA"] = args.isa
    prepare(args)
    if args.isa == "avx2" and ("ONNX Runtime" in args.peers or FIRST in chosen):
        hold_onnxruntime()
    if args.scaling:
        results = [scaling(row, args) for row in ROWS if row.name in chosen]
        print(json.dumps(results, indent=1) if args.json else scaling_table(results))
        return
    results = []
    for row in ROWS:
        if row.name not in chosen:
            continue
        if any(peer in args.peers for peer in row.peers):
            results.append(compare(row, args))
        else:
            note(f"{row.title}: none of --peers runs it")
    if INSTANCES in chosen:
        results.append(instances(args))
    if FIRST in chosen:
        results.append(first(args))
    print(json.dumps(results, indent=1) if args.json else markdown(results))
    faults = over_their_limits(results) if args.gate else []
    for fault in faults:
        note(f"--gate: {fault}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
