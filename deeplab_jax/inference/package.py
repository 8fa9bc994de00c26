"""The package folder: the one thing that training, porting, export and inference exchange.

It is the folder format of the shared inference API, plus the keys and files that only we read:

    model_config.json       which engine runs it: {"backend_type": "jax" | "onnx" | "trt", ...}
    class_names.txt         one name a line, in the order of the ids; `background` among them
    inference_config.json   network input and post-processing; our own keys: "palette" and, where the shared API
                            has no words for it, "exact" (how pictures are fitted)
    architecture.json, weights.safetensors     (jax)
    weights.onnx                               (onnx)
    engine.plan, trt_config.json               (trt)
"""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deeplab_jax.config import PreprocessConfig, from_dict, read_json
from deeplab_jax.data.classes import Classes, Colour, default_palette
from deeplab_jax.errors import InputError

WEIGHT_FILES = {
    "jax": ("architecture.json", "weights.safetensors"),
    "onnx": ("weights.onnx",),
    "trt": ("engine.plan", "trt_config.json"),
}
MAX_BATCH = 8  # pictures in one forward pass
PARTIAL = ".deeplab-partial-"  # how the name of a folder begins in which a package is being written


def with_background(classes: Classes) -> Classes:
    """The shared API wants a `background` class; it becomes id 0 where the data set has none.

    Its model then has one logit fewer than the package has classes.
    """
    if not has_background(classes.names):
        classes = Classes(("background", *classes.names), ((0, 0, 0), *classes.palette))
    if len(classes) < 2:
        raise InputError("`background` alone makes no package; name at least one more class")
    return classes


def has_background(names: Sequence[str]) -> bool:
    return "background" in [name.lower() for name in names]


def background_id(names: Sequence[str]) -> int:
    return [name.lower() for name in names].index("background")


@dataclass(frozen=True)
class Package:
    folder: Path
    backend: str
    classes: Classes
    preprocess: PreprocessConfig
    max_batch: int


def write_package(
    folder: Path,
    backend: str,
    classes: Classes,
    preprocess: PreprocessConfig,
    write_weights: Callable[[Path], None],
) -> None:
    """Writes a package beside its place and then moves it there: a package is whole or absent.

    An older package there is replaced; see `check_vacant`.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=PARTIAL) as scratch:
        new, old = Path(scratch, "new"), Path(scratch, "old")
        new.mkdir()
        write_weights(new)
        model = {
            "model_architecture": "deep-lab-v3-plus",
            "task_type": "semantic-segmentation",
            "backend_type": backend,
        }
        _write_json(new / "model_config.json", model)
        _write_json(new / "inference_config.json", _inference_config(classes, preprocess))
        (new / "class_names.txt").write_text("\n".join(classes.names) + "\n")
        try:
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
        finally:
            if old.exists() and not folder.exists():
                old.rename(folder)


def check_vacant(folder: Path) -> None:
    """Raises InputError where something is already there."""
    if folder.resolve() == Path.cwd():
        raise InputError(f"{folder} is the folder you are in; choose an --out below it")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder} exists; remove it or choose another --out")


def read_package(folder: Path) -> Package:
    """Reads and checks everything but the weights. Raises InputError that names the file and the fault."""
    if not folder.is_dir():
        raise InputError(f"the package {folder} does not exist or is no folder")
    backend = _key(folder / "model_config.json", read_json(folder / "model_config.json"), "backend_type", str)
    if backend not in WEIGHT_FILES:
        raise InputError(
            f"{folder / 'model_config.json'}: backend_type {backend!r} cannot be run; "
            f"it must be one of {', '.join(WEIGHT_FILES)}"
        )
    for name in ("class_names.txt", "inference_config.json", *WEIGHT_FILES[backend]):
        if not (folder / name).is_file():
            raise InputError(f"the package {folder} is incomplete: {name} is missing")
    path = folder / "inference_config.json"
    inference = read_json(path)
    preprocess = _preprocess(path, _key(path, inference, "network_input", dict))
    check_supported(path, inference)
    limits = from_dict(dict, inference.get("forward_pass") or {}, f"{path}: forward_pass")
    max_batch = limits.get("static_batch_size") or limits.get("max_dynamic_batch_size") or MAX_BATCH
    if from_dict(int, max_batch, f"{path}: batch size") < 1:
        raise InputError(f"{path}: batch size {max_batch} must be at least 1")
    classes = _classes(folder / "class_names.txt", path, inference.get("palette"))
    return Package(folder, backend, classes, preprocess, max_batch)


def check_supported(path: Path, inference: dict[str, Any]) -> None:
    """Raises InputError for steps that would change the result and that we do not do."""
    pre_processing = from_dict(dict, inference.get("image_pre_processing") or {}, f"{path}: image_pre_processing")
    for step, settings in pre_processing.items():
        enabled = settings.get("enabled", True) if isinstance(settings, dict) else settings
        if enabled and step != "auto-orient":  # which concerns files; we are given pixels
            raise InputError(f"{path}: image_pre_processing {step} is not supported")
    post_processing = inference.get("post_processing") or {"type": "softmax"}
    post_processing = from_dict(dict, post_processing, f"{path}: post_processing")
    if post_processing.get("fused") or post_processing.get("type") != "softmax":
        raise InputError(f"{path}: post_processing must be an unfused softmax, not {post_processing!r}")


def _inference_config(classes: Classes, preprocess: PreprocessConfig) -> dict[str, Any]:
    height, width = preprocess.size
    exact = {"resize_mode": preprocess.resize_mode, "padding_value": preprocess.padding_value}
    nearest = "letterbox" if preprocess.resize_mode == "pad" else preprocess.resize_mode
    shared = {"resize_mode": nearest, "padding_value": int(sum(preprocess.padding) / 3)}
    return {
        "image_pre_processing": {},
        "network_input": {
            "training_input_size": {"height": height, "width": width},
            "dynamic_spatial_size_supported": False,
            "color_mode": "rgb",
            **shared,
            "input_channels": 3,
            "scaling_factor": 255,
            "normalization": [list(preprocess.mean), list(preprocess.std)],
            **({"exact": exact} if exact != shared else {}),
        },
        "forward_pass": {"static_batch_size": None, "max_dynamic_batch_size": MAX_BATCH},
        "post_processing": {"type": "softmax", "fused": False},
        "palette": [list(colour) for colour in classes.palette],
    }


def _preprocess(path: Path, network_input: dict[str, Any]) -> PreprocessConfig:
    size = _key(path, network_input, "training_input_size", dict)
    expected = {"color_mode": "rgb", "input_channels": 3, "scaling_factor": 255}
    for name, value in expected.items():
        if network_input.get(name) != value:
            raise InputError(f"{path}: {name} must be {value!r}, not {network_input.get(name)!r}")
    normalization = _key(path, network_input, "normalization", list)
    if len(normalization) != 2:
        raise InputError(f"{path}: normalization must be two lists, means and deviations, not {normalization!r}")
    values = {
        "size": [_key(path, size, "height", int), _key(path, size, "width", int)],
        "resize_mode": network_input.get("resize_mode"),
        "mean": normalization[0],
        "std": normalization[1],
        "padding_value": network_input.get("padding_value") or 0,
        **from_dict(dict, network_input.get("exact") or {}, f"{path}: exact"),
    }
    return from_dict(PreprocessConfig, values, f"{path}: network_input")


def _classes(names_path: Path, config_path: Path, palette: Any) -> Classes:
    try:
        names = tuple(line.strip() for line in names_path.read_text("utf-8-sig").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{names_path} is not a readable UTF-8 text file: {error}") from None
    if len(names) < 2 or not has_background(names):
        raise InputError(f"{names_path} must list `background` and at least one more class, one name a line")
    if palette is None:
        return Classes(names, default_palette(len(names)))
    colours = from_dict(tuple[Colour, ...], palette, f"{config_path}: palette")
    if not all(0 <= channel <= 255 for colour in colours for channel in colour):
        raise InputError(f"{config_path}: palette must hold values from 0 to 255")
    if len(colours) != len(names):
        raise InputError(f"{config_path}: palette has {len(colours)} colours for {len(names)} classes")
    return Classes(names, colours)


def _key(path: Path, mapping: Any, key: str, kind: type) -> Any:
    if not isinstance(mapping, dict) or key not in mapping:
        raise InputError(f"{path}: the key {key!r} is missing")
    return from_dict(kind, mapping[key], f"{path}: {key}")


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
