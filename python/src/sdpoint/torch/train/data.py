"""Labelled images for training, resumable to the step.

An image's augmentation depends on seed, epoch and image alone, not on workers or
on what was loaded before.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
SMALL = 64


class Images:
    """A data set's two splits: `train` and `test`, and the names of its classes."""

    def __init__(self, train: Any, test: Any, classes: list[str], side: int) -> None:
        self.train, self.test, self.classes = train, test, classes
        #: The side of the images that a network is given.
        self.side = side

    @property
    def small(self) -> bool:
        """Whether images keep their size and are padded and cropped, as CIFAR's."""
        return self.side <= SMALL

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation of each colour."""
        return CIFAR if self.small else IMAGENET


def open_images(source: str, side: int | None) -> Images:
    """Opens `folder:DIR`, `cifar10:DIR`, `cifar100:DIR` or `fake:COUNT`.

    A folder has `train/` and `test/` or `val/`, with a folder for each class.
    """
    from torchvision import datasets

    kind, colon, place = source.partition(":")
    if kind == "folder" and colon:
        return _folder(Path(place).expanduser(), side)
    if kind in ("cifar10", "cifar100") and colon:
        reader = datasets.CIFAR10 if kind == "cifar10" else datasets.CIFAR100
        try:
            splits = [reader(Path(place).expanduser(), train) for train in (True, False)]
        except RuntimeError as error:
            raise ValueError(
                f"{place} does not hold {kind} in Python's format: torchvision.datasets downloads "
                "it with download=True"
            ) from error
        return Images(*splits, splits[0].classes, side or 32)
    if kind == "fake" and colon:
        side = side or 32
        fakes = [_fake(int(place), side, start) for start in (0, int(place))]
        return Images(*fakes, [str(i) for i in range(10)], side)
    raise ValueError(
        f"'{source}' is no source of images: write folder:DIR, cifar10:DIR, cifar100:DIR or fake:N"
    )


def _fake(count: int, side: int, start: int) -> Any:
    from torchvision import datasets

    return datasets.FakeData(count, (3, side, side), 10, random_offset=start)


def _folder(root: Path, side: int | None) -> Images:
    from torchvision import datasets

    test = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    if not (root / "train").is_dir() or test is None:
        raise ValueError(f"'{root}' lacks train/ or test/ (or val/), with a folder for each class")
    splits = [datasets.ImageFolder(str(path)) for path in (root / "train", test)]
    if splits[0].classes != splits[1].classes:
        different = sorted(set(splits[0].classes) ^ set(splits[1].classes))
        raise ValueError(f"'{root}': class '{different[0]}' is in one split alone")
    if side is None:
        side = _usual_side(splits[0])
    return Images(*splits, splits[0].classes, side)


def _usual_side(split: Any) -> int:
    """The images' own side where they are small and alike, else 224."""
    step = max(1, len(split) // 20)
    sizes = {read(split, i)[0].size for i in range(0, len(split), step)}
    size = next(iter(sizes))
    return size[0] if len(sizes) == 1 and size[0] == size[1] <= SMALL else 224


def transforms(images: Images, training: bool) -> Any:
    """torchvision's transforms v2: the recipe for CIFAR or for ImageNet."""
    from torchvision.transforms import v2

    mean, std = images.normalisation
    side = images.side
    finish = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    if images.small:
        resize = [v2.Resize((side, side), antialias=True)]
        # Padded after normalisation: zeros are the mean colour.
        crop = [v2.RandomCrop(side, padding=4), v2.RandomHorizontalFlip()]
        return v2.Compose([v2.ToImage(), *resize, *finish, *(crop if training else [])])
    if training:
        crop = [v2.RandomResizedCrop(side, antialias=True), v2.RandomHorizontalFlip()]
    else:
        crop = [v2.Resize(short_side(side), antialias=True), v2.CenterCrop(side)]
    return v2.Compose([v2.ToImage(), *crop, *finish])


def short_side(side: int) -> int:
    """The shorter side before the middle is cut out: 256 for 224."""
    return round(side * 256 / 224)


def preprocessing(images: Images) -> dict[str, Any]:
    """What the model file says of it."""
    mean, std = images.normalisation
    if images.small:
        train: Any = {"pad_crop": {"padding": 4, "flip": True}}
        resize = None
    else:
        train = {
            "random_resized_crop": {"area": [0.08, 1.0], "aspect": [0.75, 4 / 3], "flip": True}
        }
        resize = short_side(images.side)
    return dict(size=images.side, mean=mean, std=std, resize=resize, train=train)


def read(split: Any, index: int) -> tuple[Any, int]:
    """An image in colour and its class; raises `ValueError`, which names the file."""
    try:
        image, label = split[index]
        return image.convert("RGB"), label
    except (OSError, SyntaxError) as error:
        samples = getattr(split, "samples", None)
        name = samples[index][0] if samples else f"image {index}"
        raise ValueError(f"cannot read '{name}': {error}; mend it or take it away") from error


def seed_of(*numbers: int) -> int:
    """A seed that the numbers determine."""
    digest = hashlib.sha256(struct.pack(f"<{len(numbers)}q", *numbers)).digest()
    return int.from_bytes(digest[:7], "little")


class Augmented(Dataset):
    """Images by (epoch, index), each augmented by a stream of its own."""

    def __init__(self, split: Any, transform: Any, seed: int) -> None:
        self.split, self.transform, self.seed = split, transform, seed

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        epoch, index = key
        image, label = read(self.split, index)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.seed, 1, epoch, index))
            return self.transform(image), label


class Batches(Sampler):
    """The keys of this process's batches from a step on, over all epochs.

    An epoch's order is one for all processes; a step takes `batch` images of it, of
    which each process has an equal part, cut into `parts` batches. What does not fill a
    step is left out.
    """

    def __init__(
        self, count: int, batch: int, parts: int, rank: int, world: int, seed: int, steps: range
    ) -> None:
        self.steps_per_epoch = count // batch
        self.count, self.batch, self.parts = count, batch, parts
        self.rank, self.world, self.seed, self.steps = rank, world, seed, steps

    def __len__(self) -> int:
        return len(self.steps) * self.parts

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, order = -1, torch.empty(0, dtype=torch.long)
        share = self.batch // self.world
        size = share // self.parts
        for step in self.steps:
            if step // self.steps_per_epoch != epoch:
                epoch = step // self.steps_per_epoch
                generator = torch.Generator().manual_seed(seed_of(self.seed, 0, epoch))
                order = torch.randperm(self.count, generator=generator)
            start = step % self.steps_per_epoch * self.batch + self.rank * share
            for part in range(self.parts):
                keys = order[start + part * size : start + (part + 1) * size]
                yield [(epoch, index) for index in keys.tolist()]


class Evaluated(Dataset):
    """Images by index, prepared as for prediction."""

    def __init__(self, split: Any, transform: Any, indices: list[int]) -> None:
        self.split, self.transform, self.indices = split, transform, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        image, label = read(self.split, self.indices[place])
        return self.transform(image), label


def evaluation_loader(
    split: Any, transform: Any, indices: list[int], batch: int, workers: int
) -> DataLoader:
    """Batches of the images at `indices`, in that order."""
    return DataLoader(
        Evaluated(split, transform, indices),
        batch,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )
