"""A training run, from the first step to the model file."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from argparse import Namespace
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from ..branches import Branched, loss
from ..calibrate import calibrate
from ..errors import EngineError
from ..measure import Accuracy
from ..model_file import load, save
from ..network import Adjustable, wrap
from . import data
from .distributed import World, job, launcher
from .files import write_aside, write_curve
from .metrics import Metrics, Progress, Sums
from .networks import build
from .options import BRANCHING, PLACE, resumed
from .recipe import groups, recipe_of

CHECKPOINT, OPTIONS = "checkpoint.pt", "options.json"
#: Of the options that a run leaves: what started it.
JOB = "launcher"
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Run:
    """The state of a run; `checkpoint` and `restore` carry all of it."""

    def __init__(self, options: Namespace, folder: Path, world: World) -> None:
        self.options, self.folder, self.world = options, folder, world
        self.images = data.open_images(options.data, options.input)
        self.recipe = recipe_of(options, self.images.small)
        parts = world.size * options.accumulate
        if self.recipe.batch % parts:
            raise ValueError(f"a batch of {self.recipe.batch} cannot be cut into {parts} parts")
        self.steps_per_epoch = len(self.images.train) // self.recipe.batch
        if not self.steps_per_epoch:
            raise ValueError(
                f"{len(self.images.train)} training images do not fill a batch of "
                f"{self.recipe.batch}: take a smaller --batch"
            )
        self.step = 0
        self.sums = Sums()
        self._build()

    def _build(self) -> None:
        options, world = self.options, self.world
        # The same weights on all processes, whatever DistributedDataParallel sends.
        torch.manual_seed(options.seed)
        plain = build(options.arch, len(self.images.classes), options.pretrained)
        if options.init:
            load_weights(plain, options.init)
        if options.sync_bn and world.size > 1:
            plain = nn.SyncBatchNorm.convert_sync_batchnorm(plain)
        layout = torch.channels_last if options.channels_last else torch.contiguous_format
        plain = plain.to(world.device, memory_format=layout)
        ratios = [float(r) for r in options.ratios.split(",")] if options.ratios else None
        points = options.points.split(",") if options.points else None
        self.net = wrap(
            plain,
            ratios,
            method="sdpoint" if options.method == "plain" else options.method,
            points=points,
            draw=options.draw,
            seed=options.seed,
            engine=not options.no_engine,
        )
        self.net.name = options.arch.removeprefix("timm:")
        self.net.checkpointing = options.checkpointing
        if options.method == "plain":
            self.net.instance("full")
        if self.net.branching is not None:
            given = {field: getattr(options, name) for name, field in BRANCHING.items()}
            given = {field: value for field, value in given.items() if value is not None}
            self.net.branching = replace(self.net.branching, **given)
        self.optimizer = torch.optim.SGD(
            groups(self.net, self.recipe),
            self.recipe.rate,
            self.recipe.momentum,
            nesterov=self.recipe.nesterov,
        )
        self.net.follow(self.optimizer)
        self.averaged = None
        if options.ema:
            average = get_ema_multi_avg_fn(options.ema)
            self.averaged = AveragedModel(self.net, multi_avg_fn=average)
        if options.compile:
            self.net.compile()
        self.model: nn.Module = self.net
        if world.size > 1:
            ids = [world.device.index] if world.device.type == "cuda" else None
            self.model = DistributedDataParallel(self.net, ids)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=options.amp == "fp16")

    # Steps

    def train(self) -> None:
        """Runs the steps that are left."""
        total = self.recipe.epochs * self.steps_per_epoch
        metrics = self._metrics() if self.world.first else None
        progress = Progress(self.step, total, self.steps_per_epoch, self.recipe.batch)
        batches = iter(self._loader(range(self.step, total)))
        self.model.train()
        started = time.perf_counter()
        while self.step < total:
            self._step(batches)
            self.step += 1
            if self.world.first:
                progress.step(self.sums)
            if self.step % self.steps_per_epoch == 0:
                progress.clear()
                self._end_of_epoch(metrics, time.perf_counter() - started)
                started = time.perf_counter()
            elif self.step % self.options.checkpoint_every == 0:
                self.checkpoint()
        if metrics:
            metrics.close()

    def _metrics(self) -> Metrics:
        return Metrics(self.folder, self.step, self.options.tensorboard)

    def _step(self, batches) -> None:
        options, parts = self.options, self.options.accumulate
        rate = self.recipe.rate_at(self.step, self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # Noise of dropout and the like: a function of the step.
        torch.manual_seed(data.seed_of(options.seed, 2, self.step, self.world.rank))
        smoothing = self.recipe.label_smoothing
        progress = (self.step + 1) / (self.recipe.epochs * self.steps_per_epoch)
        for part in range(parts):
            images, labels = (t.to(self.world.device, non_blocking=True) for t in next(batches))
            if options.channels_last:
                images = images.to(memory_format=torch.channels_last)
            last = part == parts - 1
            quiet = isinstance(self.model, DistributedDataParallel) and not last
            with self.model.no_sync() if quiet else contextlib.nullcontext():
                with self._autocast():
                    output = self.model(images)
                    found = loss(output, labels, label_smoothing=smoothing, progress=progress)
                self.scaler.scale(found / parts).backward()
            self._count(output, found, labels)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.averaged is not None:
            self.averaged.update_parameters(self.net)

    def _count(self, output: Tensor | Branched, found: Tensor, labels: Tensor) -> None:
        """Adds a batch to the metrics: of several instances, the loss of `full` counts."""
        if not isinstance(output, Branched):
            self.sums.add(found.detach(), output.detach(), labels, [self.net.current])
            return
        full = output.full.detach()
        own = loss(full, labels, label_smoothing=self.recipe.label_smoothing)
        names = ["full", *(branch.instance for branch in output.branches)]
        self.sums.add(own, full, labels, names)

    def _autocast(self):
        kind = DTYPES.get(self.options.amp)
        return torch.autocast(self.world.device.type, kind, enabled=kind is not None)

    def _loader(self, steps: range) -> DataLoader:
        options, world = self.options, self.world
        augmented = data.Augmented(
            self.images.train, data.transforms(self.images, True), options.seed
        )
        keys = data.Batches(
            len(augmented),
            self.recipe.batch,
            options.accumulate,
            world.rank,
            world.size,
            options.seed,
            steps,
        )
        return DataLoader(
            augmented,
            batch_sampler=keys,
            num_workers=options.workers,
            pin_memory=world.device.type == "cuda",
        )

    def _end_of_epoch(self, metrics: Metrics | None, seconds: float) -> None:
        epoch = self.step // self.steps_per_epoch
        sum_of_losses, right, count = self.world.sum(self.sums.totals())
        if not math.isfinite(sum_of_losses):
            raise FloatingPointError(
                "the loss is no number any more: try a lower --rate, a longer --warm-up or a "
                "larger batch"
            )
        line = {
            "epoch": epoch,
            "step": self.step,
            "train_loss": sum_of_losses / count,
            "train_accuracy": right / count,
            "rate": self.recipe.rate_at(self.step - 1, self.steps_per_epoch),
            "seconds": seconds,
            "images_per_second": count / seconds,
            "drawn": dict(sorted(self.sums.drawn.items())),
        }
        every = self.options.validate_every
        if every and epoch % every == 0:
            # `full` has running statistics of its own steps.
            (row,) = self._measure(self.net, ["full"])
            line |= {"test_loss": row.loss, "test_accuracy": row.top1}
            self.model.train()
        if metrics:
            metrics.write(line)
        self.sums = Sums()
        self.checkpoint()

    # Afterwards

    def finish(self) -> list[Accuracy]:
        """Calibrates and measures every instance; writes the model and the curve."""
        net = self.net if self.averaged is None else self.averaged.module
        assert isinstance(net, Adjustable)
        images = min(self.options.calibration_images, len(self.images.train))
        self._say(f"calibrating {len(net.instances)} instances with {images} images")
        calibrate(net, self._calibration_loader(), self.options.calibration_images)
        self._say(f"measuring them on {len(self.images.test)} images")
        rows = self._measure(net, net.instances)
        if self.world.first:
            write_curve(self.folder / "curve.csv", rows)
            self._save(net, rows)
        self.world.wait()
        return rows

    def _say(self, text: str) -> None:
        if self.world.first:
            print(text, flush=True)

    def _save(self, net: Adjustable, rows: list[Accuracy]) -> None:
        about = {
            "program": "sdpoint.torch.train",
            "recipe": asdict(self.recipe),
            "options": {k: v for k, v in vars(self.options).items() if v is not None},
        }
        try:
            save(
                net,
                self.folder / "model.safetensors",
                preprocessing=data.preprocessing(self.images),
                classes=self.images.classes,
                curve=rows,
                training=about,
            )
        except EngineError:
            # --no-engine: for PyTorch alone.
            state = {"network": net.state_dict(), "sdpoint": net.sdpoint_state()}
            write_aside(self.folder / "weights.pt", lambda path: torch.save(state, path))

    def _calibration_loader(self) -> DataLoader:
        count = min(self.options.calibration_images, len(self.images.train))
        generator = torch.Generator().manual_seed(data.seed_of(self.options.seed, 3))
        order = torch.randperm(len(self.images.train), generator=generator)[:count].tolist()
        return self._evaluation_loader(self.images.train, order)

    def _measure(self, net: Adjustable, instances: list[str]) -> list[Accuracy]:
        indices = list(range(len(self.images.test)))
        with self._autocast():
            return net.curve(
                self._evaluation_loader(self.images.test, indices), instances=instances
            )

    def _evaluation_loader(self, split: Any, indices: list[int]) -> DataLoader:
        mine = indices[self.world.rank :: self.world.size]
        batch = max(2, min(self.recipe.batch // self.world.size, 256))
        transform = data.transforms(self.images, False)
        return data.evaluation_loader(split, transform, mine, batch, self.options.workers)

    # Resuming

    def checkpoint(self) -> None:
        """Writes the state of the run, whole or not at all."""
        rows = self.world.rows(self.sums.totals())
        if not self.world.first:
            return
        state = {
            "step": self.step,
            "network": self.net.state_dict(),
            "sdpoint": self.net.sdpoint_state(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged else None,
            "sums": rows,
            "drawn": dict(self.sums.drawn),
        }
        write_aside(self.folder / CHECKPOINT, lambda path: torch.save(state, path))

    def restore(self) -> None:
        """Resumes from the folder's checkpoint, if there is one."""
        path = self.folder / CHECKPOINT
        if not path.exists():
            return
        state = torch.load(path, map_location=self.world.device, weights_only=True)
        self.net.load_state_dict(state["network"])
        self.net.load_sdpoint_state(state["sdpoint"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.averaged:
            self.averaged.load_state_dict(state["averaged"])
        self.step = state["step"]
        rows = state["sums"]
        if len(rows) != self.world.size:
            # Another number of processes: the first has them all.
            rows = [[sum(column) for column in zip(*rows, strict=True)]]
            rows += [[0.0] * 3] * (self.world.size - 1)
        self.sums.restore(rows[self.world.rank], state["drawn"])


def load_weights(plain: nn.Module, path: str) -> None:
    """Starts from a model file; a classifier for other classes starts from random weights."""
    state = load(path).state_dict()
    own = plain.state_dict()
    fitting = {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}
    if len(fitting) < len(own) - 2:
        raise ValueError(
            f"'{path}' is of another network: {len(fitting)} of {len(own)} tensors fit"
        )
    plain.load_state_dict(fitting, strict=False)


def _restarted(known: Path) -> bool:
    """Whether torchrun starts this process again after one of its own failed.

    A folder that held another run before torchrun began is not taken for that. Each machine
    counts its own restarts: over several, the job's name decides.
    """
    if not known.exists() or json.loads(known.read_text()).get(JOB) != launcher():
        return False
    return job() is not None or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def open_run(options: Namespace, world: World) -> tuple[Run, bool]:
    """A new or a resumed run, and whether it was resumed."""
    folder = Path(options.resume or options.out or f"runs/{options.arch.replace(':', '-')}")
    known = folder / OPTIONS
    resuming = options.resume is not None or _restarted(known)
    if resuming:
        if not known.exists():
            raise ValueError(f"'{folder}' holds no run: it lacks {OPTIONS}")
        kept = json.loads(known.read_text())
        kept.pop(JOB, None)
        options = resumed(options, kept, folder)
    elif known.exists() and not options.overwrite:
        raise ValueError(f"'{folder}' holds a run: --resume it, or --overwrite it")
    # What is refused leaves no folder behind.
    run = Run(options, folder, world)
    world.wait()
    if world.first and not resuming:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (CHECKPOINT, "metrics.jsonl"):
            (folder / name).unlink(missing_ok=True)
        text = {k: v for k, v in vars(options).items() if k not in PLACE}
        text[JOB] = launcher()
        write_aside(known, lambda path: path.write_text(json.dumps(text, indent=1)))
    world.wait()
    if resuming:
        run.restore()
    return run, resuming
