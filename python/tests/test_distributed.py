"""Several processes: DistributedDataParallel over gloo, and the training program."""

import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import Small
from distributed_worker import train

import sdpoint.torch as sp
from sdpoint.torch.train.__main__ import main
from sdpoint.torch.train.metrics import Progress, Sums, duration
from sdpoint.torch.train.run import _restarted

pytest.importorskip("torchvision")
TENSORBOARD = importlib.util.find_spec("tensorboard") is not None
HERE = Path(__file__).parent


def environment():
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def torchrun(*arguments, processes=2, restarts=0, **options):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        f"--nproc-per-node={processes}", f"--max-restarts={restarts}", *map(str, arguments),
    ]  # fmt: skip
    return subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True, **options,
    )  # fmt: skip


def finished(process):
    try:
        output, _ = process.communicate(timeout=1200)
    except subprocess.TimeoutExpired:
        kill(process)
        raise
    assert process.returncode == 0, output
    return output


def descendants(process):
    """Its id and those of all that it started, from the top down."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [process.pid]
    for pid in found:
        found += parents.get(pid, [])
    return found


def kill(process):
    """Kills torchrun and its workers at once, as a machine that fails does."""
    for pid in descendants(process):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.communicate()


def same(left, right, **tolerance):
    assert left.keys() == right.keys()
    for key in left:
        torch.testing.assert_close(left[key], right[key], msg=key, **tolerance)


@pytest.mark.parametrize("method", ["sdpoint", "branched"])
def test_two_processes_do_what_one_does(method, tmp_path):
    finished(torchrun(HERE / "distributed_worker.py", tmp_path, method))
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert first["drawn"] == second["drawn"] and len(set(first["drawn"])) > 2
    parameters = dict(Small().named_parameters())
    for key in parameters:
        assert torch.equal(first["weights"][key], second["weights"][key])
    same(first["statistics"], second["statistics"], rtol=0, atol=0)
    assert first["loss"] == second["loss"]

    # One process that accumulates both halves takes the same steps.
    torch.manual_seed(0)
    net = sp.wrap(Small(), ratios=(0.5,), method=method, seed=3)
    assert train(net, net, lambda parts: parts) == first["drawn"]
    alone = {key: net.state_dict()[key] for key in parameters}
    same(alone, {key: first["weights"][key] for key in parameters}, rtol=1e-4, atol=1e-5)
    # Statistics are the average over both processes' batches.
    images = torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    net.load_state_dict(first["weights"])
    sp.calibrate(net, images.split(8), images=32)
    same(net.statistics.state_dict(), first["statistics"], rtol=1e-4, atol=1e-5)
    rows = net.curve([(images, torch.zeros(32, dtype=torch.long))])
    assert [row.loss for row in rows] == pytest.approx(first["loss"], rel=1e-4)


ARGUMENTS = [
    "--data", "fake:192", "--arch", "preresnet8", "--epochs", "3", "--batch", "16", "--device",
    "cpu", "--calibration-images", "64", "--checkpoint-every", "2", "--ema", "0.9",
]  # fmt: skip


def results(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("seconds"), line.pop("images_per_second")
    return lines, (folder / "curve.csv").read_text()


def trained(*arguments, processes=1):
    command = [sys.executable, "-m", "sdpoint.torch.train", *map(str, arguments)]
    if processes > 1:
        return finished(torchrun("-m", "sdpoint.torch.train", *arguments, processes=processes))
    ran = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of two processes that nothing interrupts."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    trained(*ARGUMENTS, "--workers", 0, "--out", folder, processes=2)
    return folder


def wait_for_an_epoch(folder, process):
    """Until the run in a folder is in the middle of its second epoch, most likely."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        time.sleep(0.2)
        if (folder / "metrics.jsonl").exists() or process.poll() is not None:
            break
    time.sleep(0.5)


def test_a_killed_run_goes_on_to_the_same_end(whole, tmp_path):
    killed = tmp_path / "killed"
    process = torchrun("-m", "sdpoint.torch.train", *ARGUMENTS, "--workers", 1, "--out", killed)
    wait_for_an_epoch(killed, process)
    kill(process)
    assert not (killed / "model.safetensors").exists()
    output = trained("--resume", killed, "--workers", 0, processes=2)
    assert "resuming at step" in output
    assert results(killed) == results(whole)
    left, right = (sp.load(folder / "model.safetensors") for folder in (whole, killed))
    same(left.state_dict(), right.state_dict(), rtol=0, atol=0)
    same(left.statistics.state_dict(), right.statistics.state_dict(), rtol=0, atol=0)
    # Going on with what is done gives the same again, whatever a kill left of a line.
    with open(killed / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 4, "st')
    trained("--resume", killed, "--workers", 0, processes=2)
    assert results(killed) == results(whole)
    command = [sys.executable, "-m", "sdpoint.torch.train", "--resume", killed, "--epochs", "4"]
    ran = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert ran.returncode == 1 and "began with --epochs 3" in ran.stderr


def test_torchrun_restarts_what_it_began(whole, tmp_path):
    folder = tmp_path / "restarted"
    arguments = ["-m", "sdpoint.torch.train", *ARGUMENTS, "--workers", 0, "--out", folder]
    process = torchrun(*arguments, restarts=1)
    wait_for_an_epoch(folder, process)
    os.kill(descendants(process)[-1], signal.SIGKILL)
    assert "resuming at step" in finished(process)
    assert results(folder) == results(whole)
    # A run that was there before is not gone on with.
    process = torchrun(*arguments, restarts=1)
    output, _ = process.communicate(timeout=300)
    assert process.returncode != 0 and "--resume it, or --overwrite it" in output
    assert "resuming" not in output


def test_restarts_are_told_from_new_runs(tmp_path, monkeypatch):
    known = tmp_path / "options.json"
    variables = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")
    here = f"process {os.getppid()}"
    cases = [
        (here, "none", "1", True),
        (here, "none", "0", False),
        (here, None, None, False),
        ("process 1", "none", "1", False),
        # Another machine of the job counted the restart.
        ("job7", "job7", "0", True),
        ("job7", "job8", "1", False),
    ]
    for began, *values, restarted in cases:
        for variable, value in zip(variables, values, strict=True):
            monkeypatch.delenv(variable, raising=False)
            if value is not None:
                monkeypatch.setenv(variable, value)
        assert not _restarted(tmp_path / "none.json")
        known.write_text(json.dumps({"launcher": began}))
        assert _restarted(known) == restarted, (began, values)


def test_images_that_cannot_be_read_are_named(tmp_path, capsys, monkeypatch):
    from PIL import Image

    for split, count in (("train", 8), ("test", 2)):
        for name in ("cat", "dog"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (40, 40), (number, 9, 9)).save(folder / f"{number}.png")
    broken = tmp_path / "photos/train/dog/3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    monkeypatch.chdir(tmp_path)
    for workers in ("0", "1"):
        arguments = ["--data", f"folder:{tmp_path}/photos", "--arch", "preresnet8", "--batch", "8"]
        arguments += ["--epochs", "1", "--device", "cpu", "--overwrite", "--workers", workers]
        assert main(arguments) == 1
        told = capsys.readouterr().err.strip()
        assert told.startswith(f"error: cannot read '{broken}'") and "Traceback" not in told


def test_the_program_leaves_what_it_says(tmp_path):
    folder = tmp_path / "run"
    output = trained(
        *ARGUMENTS[:-6], "--calibration-images", 32, "--out", folder, "--epochs", 1, "--workers", 0,
        "--accumulate", 2, "--amp", "bf16", "--channels-last", "--draw", "cost:-1",
        "--label-smoothing", 0.1, "--no-norm-decay", "--ratios", "0.6", "--checkpointing",
        *(["--tensorboard"] if TENSORBOARD else []),
    )  # fmt: skip
    assert "4 instances" in output and "calibrating 4 instances with 32 images" in output
    assert bool(list(folder.glob("tensorboard/events.out.*"))) == TENSORBOARD
    lines, curve = results(folder)
    assert len(lines) == 1 and lines[0]["step"] == 12
    assert sum(lines[0]["drawn"].values()) == 24
    assert all(count % 2 == 0 for count in lines[0]["drawn"].values())
    assert curve.splitlines()[0] == "instance,point,ratio,macs,share,top1,top5,loss"
    assert len(curve.splitlines()) == 5
    net = sp.load(folder / "model.safetensors")
    assert net.name == "preresnet8" and net.instances[1] == "0@0.6"
    # From here on: another run from these weights, and the same folder refused.
    again = [*ARGUMENTS[:-6], "--epochs", 1, "--workers", 0]
    other = tmp_path / "other"
    trained(*again, "--out", other, "--init", folder / "model.safetensors", "--method", "plain",
            "--calibration-images", 32)  # fmt: skip
    assert results(other)[0][0]["drawn"] == {"full": 12}
    command = [sys.executable, "-m", "sdpoint.torch.train", *map(str, again), "--out", str(other)]
    ran = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert ran.returncode == 1 and "--resume it, or --overwrite it" in ran.stderr


def test_the_program_trains_branches(tmp_path):
    folder = tmp_path / "run"
    output = trained(
        *ARGUMENTS[:-6], "--calibration-images", 32, "--out", folder, "--epochs", 1, "--workers", 0,
        "--method", "branched", "--branches", 2, "--temperature", 2,
    )  # fmt: skip
    assert "7 instances" in output
    lines, curve = results(folder)
    drawn = lines[0]["drawn"]
    assert drawn.pop("full") == 12 and sum(drawn.values()) == 24
    assert len(curve.splitlines()) == 8


def test_the_program_trains_the_preset(tmp_path):
    folder = tmp_path / "run"
    output = trained(
        *ARGUMENTS[:-6], "--calibration-images", 32, "--out", folder, "--epochs", 1, "--workers", 0,
        "--method", "sdpoint+",
    )  # fmt: skip
    assert "10 instances" in output
    lines, curve = results(folder)
    assert sum(lines[0]["drawn"].values()) == 12
    assert len(curve.splitlines()) == 11 and "0@0.6" in curve


def test_progress_is_a_line_on_a_terminal_and_one_a_minute_elsewhere():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stream, seconds in ((Terminal(), 2), (io.StringIO(), 61)):
        progress = Progress(15, 30, 10, 32, stream)
        sums = Sums()
        sums.restore([6.0, 8.0, 12.0], {})
        progress.step(sums)
        assert stream.getvalue() == ""
        progress.started -= seconds
        progress.shown -= seconds
        progress.step(sums)
        shown = stream.getvalue()
        assert "epoch 2, step 7 of 10: loss 0.5000, accuracy 66.67%" in shown
        assert ("\r" in shown) == stream.isatty() and ("\n" in shown) != stream.isatty()
    assert "1 images/s, 6 min left" in shown
    assert [duration(s) for s in (42, 200, 10_000)] == ["42 s", "3 min", "2 h 46 min"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--data", "fake:8"], "do not fill a batch"),
        (["--data", "tar:x"], "is no source of images"),
        (["--data", "folder:/nowhere"], "lacks train/"),
        (["--data", "fake:256", "--arch", "resnet51"], "no network 'resnet51'"),
        (["--data", "fake:256", "--arch", "preresnet21"], "depth is 6n"),
        (["--data", "fake:256", "--arch", "vit_b_16"], "transformer"),
        (["--data", "fake:256", "--arch", "efficientnet_b0"], "SiLU"),
        (["--data", "fake:256", "--batch", "6", "--accumulate", "4"], "cannot be cut into 4"),
        (["--data", "fake:256", "--ratios", "2"], "not a ratio"),
        (["--data", "fake:256", "--method", "branched", "--temperature", "0"], "temperature is 0"),
        (["--data", "fake:256", "--draw", "menu:1"], "not INSTANCE=PROBABILITY"),
        (["--resume", "/nowhere"], "holds no run"),
    ],
)
def test_wrong_options_are_explained(arguments, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--device", "cpu", "--workers", "0", "--input", "32"]) == 1
    assert text in capsys.readouterr().err
    # Nothing is left that a corrected call would find in its way.
    assert not list(tmp_path.iterdir())
