"""inference_config.json of the shared inference API, to and from our own terms.

    {"image_pre_processing": {"static-crop": {"enabled", "x_min", "x_max", "y_min", "y_max"}, "grayscale": {"enabled"},
                              "contrast": {"enabled", "type"}, "auto-orient": {"enabled"}},
     "network_input": {"training_input_size": {"height", "width"}, "dynamic_spatial_size_supported",
                       "dynamic_spatial_size_mode": {"type"}, "color_mode", "resize_mode", "padding_value",
                       "input_channels", "scaling_factor", "normalization": [means, deviations]},
     "forward_pass": {"static_batch_size", "max_dynamic_batch_size"},
     "post_processing": {"type": "softmax", "fused": false}}

Our own keys: "palette" and, where the shared API has no words for it, "exact": how images are fitted, and the "size"
that a network for any size was trained for. Unknown keys are ignored, as they are there.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deeplab_jax.classes import Classes, Color
from deeplab_jax.config import Contrast, PreprocessConfig
from deeplab_jax.errors import InputError
from deeplab_jax.serialization import from_dict

MAX_BATCH = 8  # images in one forward pass
FARTHEST = 1e6  # mean, and inverse of a deviation, of images in 0..1
# How the shared API runs packages of engines that take one size only.
STANDS_FOR = {"letterbox-reflect-edges": "letterbox", "fit-longer-edge": "letterbox"}


@dataclass(frozen=True)
class InferenceConfig:
    preprocess: PreprocessConfig
    any_size: bool  # images are not fitted: each is network input of its own size
    max_batch: int
    palette: tuple[Color, ...] | None


def write(
    classes: Classes,
    preprocess: PreprocessConfig,
    *,
    dynamic_size: bool = False,
    max_batch: int = MAX_BATCH,
    model_initialization: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What the file of a package says.

    Args:
        dynamic_size: the network takes images of any height and width, and each is its input in its own size.
        max_batch: images in one forward pass.
        model_initialization: what the shared API's torch backend builds the network from.
    """
    height, width = preprocess.size
    exact: dict[str, Any] = {"resize_mode": preprocess.resize_mode, "padding_value": preprocess.padding_value}
    shared = shared_resize(preprocess)
    if dynamic_size:
        exact["size"] = [height, width]
    return {
        "image_pre_processing": _write_steps(preprocess),
        "network_input": {
            # Beside a size the shared API's clients fit images into it, whatever the network could take.
            "training_input_size": None if dynamic_size else {"height": height, "width": width},
            "dynamic_spatial_size_supported": dynamic_size,
            "dynamic_spatial_size_mode": {"type": "any-size"} if dynamic_size else None,
            "color_mode": "rgb" if preprocess.channels == 1 else preprocess.color_mode,
            **shared,
            "input_channels": preprocess.channels,
            "scaling_factor": 255,
            "normalization": [list(v[: preprocess.channels]) for v in (preprocess.mean, preprocess.std)],
            **({"exact": exact} if exact != shared else {}),
        },
        "forward_pass": {"static_batch_size": None, "max_dynamic_batch_size": max_batch},
        "post_processing": {"type": "softmax", "fused": False},
        "palette": [list(color) for color in classes.palette],
        **({"model_initialization": model_initialization} if model_initialization else {}),
    }


def shared_resize(preprocess: PreprocessConfig) -> dict[str, Any]:
    """How images are fitted or, where the shared API has no words for that, the nearest."""
    mode = "letterbox" if preprocess.resize_mode == "pad" else preprocess.resize_mode
    return {"resize_mode": mode, "padding_value": int(sum(preprocess.padding) / 3)}


def difference_from_shared(preprocess: PreprocessConfig) -> str | None:
    """How other clients of the shared API fit images, where that is not how we do."""
    shared, levels = shared_resize(preprocess), preprocess.padding
    if preprocess.resize_mode == "stretch":
        return None
    if shared["resize_mode"] == preprocess.resize_mode and {*levels} == {shared["padding_value"]}:
        return None
    own = ", ".join(f"{level:.0f}" for level in levels)
    return (
        f"other clients of the shared API fit images by {shared['resize_mode']} on gray {shared['padding_value']}, "
        f"AutoModel by {preprocess.resize_mode} on ({own})"
    )


def _write_steps(preprocess: PreprocessConfig) -> dict[str, Any]:
    steps: dict[str, Any] = {}
    if preprocess.static_crop:
        sides = zip(("x_min", "y_min", "x_max", "y_max"), preprocess.static_crop, strict=True)
        steps["static-crop"] = {"enabled": True, **dict(sides)}
    if preprocess.grayscale:
        steps["grayscale"] = {"enabled": True}
    if preprocess.contrast:
        steps["contrast"] = {"enabled": True, "type": preprocess.contrast}
    return steps


def read(path: Path, document: Any) -> InferenceConfig:
    """The inverse of `write`, and what other writers say. Raises InputError that names the file and the fault."""
    network_input = key(path, document, "network_input", dict)
    batch = _object(path, document, "forward_pass")
    max_batch = batch.get("static_batch_size") or batch.get("max_dynamic_batch_size") or MAX_BATCH
    if not from_dict(int, max_batch, f"{path}: batch size") >= 1:
        raise InputError(f"{path}: batch size {max_batch} must be at least 1")
    post_processing = _object(path, document, "post_processing") or {"type": "softmax"}
    if post_processing.get("fused") or post_processing.get("type") != "softmax":
        raise InputError(f"{path}: post_processing must be an unfused softmax, not {post_processing!r}")
    palette = document.get("palette")
    return InferenceConfig(
        _preprocess(path, network_input, _read_steps(path, _object(path, document, "image_pre_processing"))),
        _any_size(path, network_input),
        max_batch,
        None if palette is None else from_dict(tuple[Color, ...], palette, f"{path}: palette"),
    )


def _preprocess(path: Path, network_input: dict[str, Any], steps: dict[str, Any]) -> PreprocessConfig:
    channels = key(path, network_input, "input_channels", int)
    if channels not in (1, 3):
        raise InputError(f"{path}: input_channels must be 1 or 3, not {channels}")
    size = [512, 512]
    if not _any_size(path, network_input):
        if network_input.get("training_input_size", size) is None:
            raise InputError(
                f"{path}: training_input_size is null, which only a network for any size may have "
                '(dynamic_spatial_size_mode {"type": "any-size"}); write a height and width that it takes there'
            )
        sides = key(path, network_input, "training_input_size", dict)
        size = [key(path, sides, "height", int), key(path, sides, "width", int)]
    mode = key(path, network_input, "resize_mode", str)
    mean, std = _normalization(path, network_input, channels)
    values = {
        "size": size,
        "resize_mode": STANDS_FOR.get(mode, mode),
        "mean": mean,
        "std": std,
        "padding_value": 0 if mode == "fit-longer-edge" else network_input.get("padding_value") or 0,
        "color_mode": "gray" if channels == 1 else key(path, network_input, "color_mode", str),
        **_object(path, network_input, "exact"),
        **steps,
    }
    return from_dict(PreprocessConfig, values, f"{path}: network_input")


def _normalization(path: Path, network_input: dict[str, Any], channels: int) -> list[list[float]]:
    """Means and deviations of images in 0..1, whatever `scaling_factor` brings images to, three each."""
    scale = from_dict(float, network_input.get("scaling_factor") or 1, f"{path}: scaling_factor")
    if not 0 < scale < float("inf"):
        raise InputError(f"{path}: scaling_factor={scale} must be positive")
    lists = from_dict(
        tuple[tuple[float, ...], ...], network_input.get("normalization") or [[0.0], [1.0]], f"{path}: normalization"
    )
    if not (len(lists) == 2 and all(len(values) in (1, channels) for values in lists)):
        raise InputError(
            f"{path}: normalization must be two lists of {channels} values, means and deviations, not {lists!r}"
        )
    means, deviations = ([value * (scale / 255) for value in values * (3 // len(values))] for values in lists)
    beyond = any(abs(mean) > FARTHEST for mean in means) or any(0 < d < 1 / FARTHEST for d in deviations)
    if beyond:
        raise InputError(f"{path}: images divided by {scale:g} and normalized by {lists!r} are beyond float32's range")
    return [means, deviations]


def _read_steps(path: Path, document: dict[str, Any]) -> dict[str, Any]:
    """The fields of PreprocessConfig for what is enabled. `auto-orient` concerns files, and those are turned anyway."""
    place = f"{path}: image_pre_processing"
    enabled = {
        name: step for name in ("static-crop", "grayscale", "contrast") if (step := _enabled(place, document, name))
    }
    fields: dict[str, Any] = {"grayscale": "grayscale" in enabled}
    if crop := enabled.get("static-crop"):
        fields["static_crop"] = [crop.get(side) for side in ("x_min", "y_min", "x_max", "y_max")]
    if contrast := enabled.get("contrast"):
        fields["contrast"] = from_dict(Contrast, contrast.get("type"), f"{place}: contrast type")
    return fields


def _enabled(place: str, document: dict[str, Any], name: str) -> dict[str, Any]:
    """A step's settings; empty where it is not to be done."""
    step = from_dict(dict, document.get(name) or {"enabled": False}, f"{place}: {name}")
    return step if from_dict(bool, step.get("enabled"), f"{place}: {name}: enabled") else {}


def _any_size(path: Path, network_input: dict[str, Any]) -> bool:
    """Whether images keep their size: there is none to fit them into, and the network takes all."""
    dynamic = network_input.get("dynamic_spatial_size_supported") is True
    mode = _object(path, network_input, "dynamic_spatial_size_mode").get("type")
    return network_input.get("training_input_size") is None and dynamic and mode == "any-size"


def key(path: Path, mapping: Any, name: str, kind: type) -> Any:
    if not isinstance(mapping, dict) or name not in mapping:
        raise InputError(f"{path}: the key {name!r} is missing")
    return from_dict(kind, mapping[name], f"{path}: {name}")


def _object(path: Path, mapping: dict[str, Any], name: str) -> dict[str, Any]:
    """The object under a key that may be absent or null."""
    return from_dict(dict, mapping.get(name) or {}, f"{path}: {name}")
