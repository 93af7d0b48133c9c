"""Writes and reads sdpoint's model files, version 3 of the format.

`docs/model-file.md` is the specification: a safetensors file whose metadata
describes the network, its instances and its preprocessing.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

import torch
from torch import Tensor, nn

from . import preprocessing as images
from .description import Description
from .errors import ModelFileError, StatisticsError
from .instance import FULL, Instance
from .network import Adjustable, unwrapped

VERSION = 3
FEATURES = (
    "blended_cascades",
    "combinations",
    "exif_orientation",
    "held_out",
    "interpolation",
    "own_parameters",
    "relu6",
    "samples",
    "squash_crop",
)
BLANK = "0" * 64


def save(
    net: nn.Module,
    path: str | os.PathLike,
    *,
    preprocessing: Any = None,
    classes: Sequence[str] | None = None,
    curve: Iterable[Any] = (),
    training: Any = None,
) -> None:
    """Writes a network as a model file for sdpoint's engine, atomically.

    `preprocessing` is a dictionary with `size`, `mean`, `std` and so on (docs/pytorch.md),
    torchvision's `weights.transforms()`, or timm's `resolve_model_data_config(net)`.
    `classes` are the names of the classes in the order of the logits, by default numbers.
    `curve` is the result of `net.curve`, whose accuracies are stored. `training` is any
    JSON, informative only. The instances are `full` and all that have statistics.

    Raises `ModelFileError` if something is missing, `StatisticsError` before
    calibration, and `EngineError` if the engine cannot run the network.
    """
    net = unwrapped(net)
    lowered = net.lowered()
    description = lowered.description
    prepared = images.checked(preprocessing, description.layers[0].numbers["channels"])
    outputs = _outputs(description)
    names = [str(i) for i in range(outputs)] if classes is None else [str(c) for c in classes]
    if len(names) != outputs:
        raise ModelFileError(f"classes names {len(names)}, but the network has {outputs} logits")
    _check_statistics(net, description)

    instances = [Instance()] + [Instance.parse(name) for name in net.statistics.own]
    measured = {row.instance: row for row in curve}
    size = tuple(prepared["size"])
    records = [_record(description, size, i, measured.get(str(i))) for i in instances]
    tensors = dict(lowered.parameters)
    for norm, moments in lowered.statistics.items():
        tensors[f"{norm}.running_mean"], tensors[f"{norm}.running_var"] = moments
    for instance in instances[1:]:
        own = net.statistics.own[str(instance)]
        for norm in description.norms_behind(instance):
            prefix = f"instances/{instance}/{norm}"
            tensors[f"{prefix}.running_mean"], tensors[f"{prefix}.running_var"] = own[norm]
        for module, named in net.statistics.parameters.get(str(instance), {}).items():
            tensors |= {f"instances/{instance}/{module}.{name}": t for name, t in named.items()}
    tuned = [str(instance) for instance in instances if str(instance) in net.statistics.parameters]
    document = {
        "version": VERSION,
        "sha256": BLANK,
        "features": sorted(
            images.features(prepared)
            + description.features()
            + (["own_parameters"] if tuned else [])
        ),
        "network": description.as_json(),
        "classes": names,
        "preprocessing": prepared,
        "instances": records,
        **({"own_parameters": tuned} if tuned else {}),
        "training": {"program": "sdpoint.torch"} if training is None else training,
    }
    write(Path(path), document, {name: _array(name, t) for name, t in tensors.items()})


def write(path: Path, document: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
    """Writes a model file; `sha256` of the document is filled in."""
    header: dict[str, Any] = {"__metadata__": {"sdpoint": json.dumps(document, allow_nan=False)}}
    end = 0
    for name, values in tensors.items():
        start, end = end, end + values.nbytes
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    start_of_file = struct.pack("<Q", len(text)) + text
    digest = hashlib.sha256(start_of_file)
    for values in tensors.values():
        digest.update(values.tobytes())
    sealed = start_of_file.replace(BLANK.encode(), digest.hexdigest().encode(), 1)

    if path.is_dir():
        raise ModelFileError(f"'{path}' is a folder: give the name of a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(sealed)
            for values in tensors.values():
                file.write(values.tobytes())
            file.flush()
            os.fsync(file.fileno())
        os.chmod(aside, 0o666 & ~_umask())
        os.replace(aside, path)
    except BaseException:
        os.unlink(aside)
        raise


def read(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description and the tensors of a model file, checked against its checksum."""
    name = os.fspath(path)
    try:
        with safe_open(name, "pt") as file:
            metadata = file.metadata() or {}
            if "sdpoint" not in metadata:
                raise ModelFileError(f"'{name}' holds tensors but no sdpoint description")
            about = json.loads(metadata["sdpoint"])
            version = about["version"]
            if not 1 <= version <= VERSION:
                raise ModelFileError(f"'{name}' has format version {version}: update sdpoint.torch")
            unknown = set(about.get("features", [])) - set(FEATURES)
            if unknown:
                raise ModelFileError(
                    f"'{name}' has {', '.join(sorted(unknown))}, which this version of "
                    "sdpoint.torch does not know: update it"
                )
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelFileError(f"cannot read '{name}': {error}") from error
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ModelFileError(f"the description in '{name}' is malformed: {error}") from error
    _check_digest(name, str(about["sha256"]))
    return about, tensors


def _check_digest(name: str, digest: str) -> None:
    with open(name, "rb") as file:
        data = file.read()
    # The digest is in the header; nothing of the tensors may be taken for it.
    end = 8 + struct.unpack("<Q", data[:8])[0]
    start = data[:end].replace(digest.encode(), BLANK.encode(), 1)
    if hashlib.sha256(start + data[end:]).hexdigest() != digest:
        raise ModelFileError(
            f"'{name}' was altered after it was written: its content does not match its checksum"
        )


def load(path: str | os.PathLike, into: nn.Module | None = None) -> Adjustable:
    """Loads a model file as a network with all its instances, for evaluation or training.

    With `into`, weights and statistics are loaded into a wrapped network with the
    same parameters; otherwise, the network is built from the file's description.
    """
    from .described import build

    about, tensors = read(path)
    description = Description.of_json(about["network"])
    instances = [entry["instance"] for entry in about["instances"]]
    net = build(description, instances) if into is None else unwrapped(into)
    plain = {k: v for k, v in tensors.items() if not k.startswith("instances/")}
    missing, unexpected = net.load_state_dict(plain, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        kind, first = ("lacks", missing) if missing else ("has besides", unexpected)
        raise ModelFileError(
            f"'{os.fspath(path)}' is of another network: it {kind} '{first[0]}' "
            f"({len(missing)} tensors missing, {len(unexpected)} left over)"
        )
    for name, _ in description.points:
        place = Instance(name, 0.5)
        known = [point.name for point in net.points]
        if name not in known or net._behind(place) != description.norms_behind(place):
            raise ModelFileError(
                f"'{os.fspath(path)}' has its point {name} at another place than the network: wrap "
                "it with the points that the file was trained with, or load without into="
            )
    like = next(net.parameters())
    net.statistics.own = {
        instance: {
            norm: tuple(
                tensors[f"instances/{instance}/{norm}.{kind}"].to(like.device)
                for kind in ("running_mean", "running_var")
            )
            for norm in description.norms_behind(Instance.parse(instance))
        }
        for instance in instances
        if instance != FULL
    }
    net.statistics.parameters = {}
    for instance in about.get("own_parameters", []):
        modules = net.statistics.parameters.setdefault(instance, {})
        for path, name in description.own_parameters(Instance.parse(instance)):
            tensor = tensors[f"instances/{instance}/{path}.{name}"].to(like.device)
            modules.setdefault(path, {})[name] = tensor
    net.statistics.stale = None
    return net


def _outputs(description: Description) -> int:
    for layer in reversed(description.layers):
        if layer.op in ("linear", "conv"):
            numbers = layer.numbers
            return numbers["out_features" if layer.op == "linear" else "out_channels"]
    raise ModelFileError("the network has no layer that computes logits")


def _check_statistics(net: Adjustable, description: Description) -> None:
    if not net.statistics.own and any(layer.op == "batch_norm" for layer in description.layers):
        raise StatisticsError(
            "no instance but full has batch-norm statistics: run "
            "sdpoint.torch.calibrate(net, loader) before saving"
        )
    if net.statistics.stale is not None:
        raise StatisticsError(
            f"the statistics of instances are out of date, since {net.statistics.stale}: run "
            "sdpoint.torch.calibrate(net, loader) again before saving"
        )


def _record(
    description: Description, size: tuple[int, int], instance: Instance, measured: Any
) -> dict[str, Any]:
    record: dict[str, Any] = {
        "instance": str(instance),
        "macs": description.macs(size, instance),
    }
    if measured is not None:
        if not (0 <= measured.top1 <= measured.top5 <= 1 and measured.loss >= 0):
            raise ModelFileError(
                f"the accuracies of {instance} in curve are impossible: {measured}"
            )
        record |= {"top1": measured.top1, "top5": measured.top5, "loss": measured.loss}
    return record


def _array(name: str, tensor: Tensor) -> np.ndarray:
    with torch.no_grad():
        values = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
    values = np.ascontiguousarray(values, dtype="<f4")
    if not np.isfinite(values).all():
        raise ModelFileError(f"'{name}' holds values that are not finite: did training diverge?")
    if name.endswith("running_var") and (values < 0).any():
        raise ModelFileError(f"'{name}' holds variances below zero")
    return values


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
