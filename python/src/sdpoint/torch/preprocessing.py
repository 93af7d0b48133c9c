"""How images become inputs, as model files have it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from .errors import ModelFileError

INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
MAX_SIDE = 1 << 14
HINT = (
    "give preprocessing=dict(size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), "
    "resize=256), the numbers with which images were prepared for evaluation; "
    "`weights.transforms()` of torchvision and `timm.data.resolve_model_data_config(net)` do, too"
)

_KEYS = (
    "size",
    "mean",
    "std",
    "resize",
    "evaluate",
    "train",
    "interpolation",
    "exif_orientation",
)


def checked(given: Any, channels: int) -> dict[str, Any]:
    """The preprocessing of a model file from what a user gives.

    `given` is a dictionary with

    - `size`: a side or (height, width) of the input, in pixels;
    - `mean`, `std`: of each colour, for values from 0 to 1;
    - `resize`: None (the image is resized to `size`, whatever its shape), a number (the
      shorter side, before the middle is cut out) or (height, width) (the whole image,
      before the middle is cut out);
    - `interpolation` ("bilinear"), `exif_orientation` ("ignore" or "apply");
    - `train`: the augmentation, as the model file has it, if the engine is to train on;

    or torchvision's `weights.transforms()`, or timm's data configuration. Raises
    `ModelFileError` if it makes no input of a network for `channels` colours.
    """
    if given is None:
        raise ModelFileError(f"a model file says how images become inputs: {HINT}")
    entries = _entries(given)
    unknown = [key for key in entries if key not in _KEYS]
    if unknown:
        raise ModelFileError(f"preprocessing has no '{unknown[0]}'; it has {', '.join(_KEYS)}")
    missing = [key for key in ("size", "mean", "std") if key not in entries]
    if missing:
        raise ModelFileError(f"preprocessing lacks {', '.join(missing)}: {HINT}")
    size = _sides("size", entries["size"])
    mean, std = (
        _numbers("mean", entries["mean"], channels),
        _numbers("std", entries["std"], channels),
    )
    if min(std) <= 0:
        raise ModelFileError(f"std must be above 0, but is {std}")
    if max(abs(value) for value in mean) > 20 or max(std) > 20:
        scaled = [round(value / 255, 4) for value in mean]
        raise ModelFileError(
            f"mean {mean} and std {std} are for pixels from 0 to 255; give them for values from 0 "
            f"to 1: mean {scaled}, std {[round(value / 255, 4) for value in std]}"
        )
    result = {
        "size": size,
        "mean": mean,
        "std": std,
        "train": _train(entries.get("train") or "none"),
        "evaluate": _given_evaluate(entries.get("evaluate")) or _evaluate(entries.get("resize")),
    }
    interpolation = str(entries.get("interpolation") or "bilinear").lower()
    if interpolation not in INTERPOLATIONS:
        raise ModelFileError(
            f"interpolation '{interpolation}' is none of {', '.join(INTERPOLATIONS)}"
        )
    if interpolation != "bilinear":
        result["interpolation"] = interpolation
    exif = entries.get("exif_orientation") or "ignore"
    if exif not in ("ignore", "apply"):
        raise ModelFileError(f"exif_orientation is 'ignore' or 'apply', not '{exif}'")
    if exif != "ignore":
        result["exif_orientation"] = exif
    return result


def features(preprocessing: Mapping[str, Any]) -> list[str]:
    """The named features of the format that a preprocessing has."""
    evaluate = preprocessing["evaluate"]
    squash = isinstance(evaluate, Mapping) and "squash_crop" in evaluate
    found = [key for key in ("exif_orientation", "interpolation") if key in preprocessing]
    return found + ["squash_crop"] * squash


def _entries(given: Any) -> dict[str, Any]:
    if isinstance(given, Mapping):
        return _of_timm(given) if "input_size" in given else dict(given)
    if hasattr(given, "crop_size") and hasattr(given, "resize_size"):
        return _of_torchvision(given)
    raise ModelFileError(f"preprocessing is a dictionary, not {type(given).__name__}: {HINT}")


def _of_torchvision(preset: Any) -> dict[str, Any]:
    interpolation = getattr(preset.interpolation, "value", preset.interpolation)
    resize = preset.resize_size[0]
    return {
        "size": preset.crop_size[0],
        "resize": resize,
        "mean": preset.mean,
        "std": preset.std,
        "interpolation": interpolation,
    }


def _of_timm(config: Mapping[str, Any]) -> dict[str, Any]:
    mode = config.get("crop_mode", "center")
    if mode not in ("center", "squash"):
        raise ModelFileError(f"timm's crop_mode '{mode}' is not one that model files have")
    height, width = config["input_size"][-2:]
    share = config.get("crop_pct", 0.875)
    if mode == "squash":
        resize: Any = (math.floor(height / share), math.floor(width / share))
    else:
        resize = math.floor(min(height, width) / share)
    return {
        "size": (height, width),
        "resize": resize,
        "mean": config["mean"],
        "std": config["std"],
        "interpolation": config.get("interpolation", "bicubic"),
    }


def _train(value: Any) -> Any:
    """The augmentation as the model file has it."""
    fields = {
        "pad_crop": {"padding": _is_natural, "flip": _is_flag},
        "random_resized_crop": {"area": _is_pair, "aspect": _is_pair, "flip": _is_flag},
    }
    if value == "none" or _fits(value, fields):
        return value
    raise ModelFileError(
        f"train is {value!r}; it is 'none', {{'pad_crop': {{'padding': 4, 'flip': True}}}} or "
        "{'random_resized_crop': {'area': [0.08, 1], 'aspect': [0.75, 1.3333], 'flip': True}}"
    )


def _given_evaluate(value: Any) -> Any:
    """What precedes the network, as the model file has it; None if it is not given."""
    fields = {"center_crop": {"resize": _is_side}, "squash_crop": {"resize": _are_sides}}
    if value is None or value == "resize" or _fits(value, fields):
        return value
    raise ModelFileError(
        f"evaluate is {value!r}; it is 'resize', {{'center_crop': {{'resize': 256}}}} or "
        "{'squash_crop': {'resize': [256, 256]}}; the key resize says the same"
    )


def _fits(value: Any, forms: Mapping[str, Mapping[str, Callable[[Any], bool]]]) -> bool:
    """Whether a value is one of some named forms, with a fitting value in each field."""
    if not isinstance(value, Mapping) or len(value) != 1:
        return False
    ((name, fields),) = value.items()
    form = forms.get(name)
    if form is None or not isinstance(fields, Mapping) or fields.keys() != form.keys():
        return False
    return all(check(fields[key]) for key, check in form.items())


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_pair(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_number, value))


def _are_sides(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_side, value))


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_natural(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_SIDE


def _is_side(value: Any) -> bool:
    return _is_natural(value) and value >= 1


def _evaluate(resize: Any) -> Any:
    if resize is None:
        return "resize"
    if isinstance(resize, (tuple, list)) and len(resize) == 2:
        return {"squash_crop": {"resize": _sides("resize", resize)}}
    return {"center_crop": {"resize": _sides("resize", resize)[0]}}


def _sides(what: str, value: Any) -> list[int]:
    sides = list(value) if isinstance(value, (tuple, list)) else [value, value]
    fits = len(sides) == 2 and all(
        isinstance(side, (int, float)) and side == int(side) and 1 <= side <= MAX_SIDE
        for side in sides
    )
    if not fits:
        raise ModelFileError(f"{what} is {value!r}; it is a side or (height, width) in pixels")
    return [int(side) for side in sides]


def _numbers(what: str, value: Any, channels: int) -> list[float]:
    try:
        values = [float(v) for v in value]
    except (TypeError, ValueError) as error:
        raise ModelFileError(
            f"{what} is {value!r}; give a number for each of the {channels} colours"
        ) from error
    if len(values) != channels or not all(math.isfinite(v) for v in values):
        raise ModelFileError(f"{what} is {values}; the network takes {channels} colours")
    return values
