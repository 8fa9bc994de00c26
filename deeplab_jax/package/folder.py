"""The package folder: the one thing that training, porting, export and inference exchange.

It is the folder format of the shared inference API, plus the keys and files that only we read:

    model_config.json       which engine runs it: {"backend_type": "jax" | "onnx" | "trt", ...}
    class_names.txt         one name a line, in the order of the ids; `background` among them
    inference_config.json   network input and post-processing; see inference_config.py
    architecture.json, weights.safetensors     (jax)
    weights.onnx                               (onnx)
    engine.plan, trt_config.json               (trt)
"""

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

from deeplab_jax.classes import BLACK, Classes, default_palette, has_background
from deeplab_jax.config import PreprocessConfig
from deeplab_jax.errors import InputError
from deeplab_jax.package import inference_config
from deeplab_jax.package.limits import MOST_BYTES, MOST_CLASSES, check_forward, check_text, image_bytes
from deeplab_jax.serialization import read_json

WEIGHT_FILES = {
    "jax": ("architecture.json", "weights.safetensors"),
    "onnx": ("weights.onnx",),
    "trt": ("engine.plan", "trt_config.json"),
}
KIND = {"model_architecture": "deep-lab-v3-plus", "task_type": "semantic-segmentation"}  # in model_config.json
PARTIAL = ".deeplab-partial-"  # how the name of a folder or file begins that is being written

InputSize = tuple[int, int] | Literal["image"]  # (height, width) of the network input, or that of every image


def with_background(classes: Classes) -> Classes:
    """The shared API wants a `background` class; it becomes id 0 where the data set has none.

    Its model then has one logit fewer than the package has classes.
    """
    if not has_background(classes.names):
        spare = next(color for color in default_palette(len(classes) + 2)[1:] if color not in classes.palette)
        colors = tuple(spare if color == BLACK else color for color in classes.palette)
        classes = Classes(("background", *classes.names), (BLACK, *colors))
    if len(classes) < 2:
        raise InputError("`background` alone makes no package; name at least one more class")
    return classes


def background_id(names: Sequence[str]) -> int:
    return [name.lower() for name in names].index("background")


def one_logit_tells(names: Sequence[str]) -> bool:
    """Whether one logit, whose sigmoid is the probability of class 1, tells these classes apart."""
    return len(names) == 2 and has_background(names[:1])


@dataclass(frozen=True)
class Package:
    folder: Path
    backend: str
    classes: Classes
    preprocess: PreprocessConfig
    any_size: bool  # images are network input in their own size; that of `preprocess` is no more than usual
    max_batch: int  # images in one forward pass
    size_from: str = "inference_config.json"  # what says how large the network input is

    @property
    def planes(self) -> int:
        """How many float32 planes an image's network input and logits are together, at most."""
        return self.preprocess.channels + len(self.classes)


def write_package(
    folder: Path,
    backend: str,
    classes: Classes,
    preprocess: PreprocessConfig,
    write_weights: Callable[[Path], None],
    **settings,
) -> None:
    """Writes a package beside its place and then moves it there: a package is whole or absent.

    An older package there is replaced; see `check_vacant`. The `settings` are those of `inference_config.write`.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=PARTIAL) as scratch:
        new, old = Path(scratch, "new"), Path(scratch, "old")
        new.mkdir()
        try:
            write_weights(new)
            _write_json(new / "model_config.json", {**KIND, "backend_type": backend})
            _write_json(new / "inference_config.json", inference_config.write(classes, preprocess, **settings))
            (new / "class_names.txt").write_text("\n".join(classes.names) + "\n", "utf-8")
        except OSError as error:  # a full disk, mostly
            raise InputError(f"{folder}: the package cannot be written ({error})") from None
        try:
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
        finally:
            if old.exists() and not folder.exists():
                old.rename(folder)


def check_vacant(folder: Path) -> None:
    """Raises InputError where something is already there, or no folder can be made."""
    if folder.resolve() == Path.cwd():
        raise InputError(f"{folder} is the folder you are in; choose an --out below it")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder} exists; remove it or choose another --out")
    above = next(place for place in folder.absolute().parents if place.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise InputError(f"{folder} cannot be written, as {above} is no folder to write into; choose another --out")


def read_package(folder: Path, size: InputSize | None = None) -> Package:
    """Reads and checks everything but the weights. Raises InputError that names the file and the fault.

    `size`: of the network input, instead of what the package says.
    """
    try:
        if not folder.is_dir():
            raise InputError(f"the package {folder} does not exist or is no folder")
        return _read_package(folder, size)
    except RecursionError:
        raise InputError(f"{folder}: a JSON file is nested too deeply") from None
    except OSError as error:
        raise InputError(f"the package {folder} cannot be read: {error}") from None


def _read_package(folder: Path, size: InputSize | None) -> Package:
    backend = _backend(folder)
    for name in ("class_names.txt", "inference_config.json", *WEIGHT_FILES[backend]):
        if not (folder / name).is_file():
            raise InputError(f"the package {folder} is incomplete: {name} is missing")
    path = folder / "inference_config.json"
    config = inference_config.read(path, _read_json(path))
    names = _class_names(folder / "class_names.txt")
    palette = default_palette(len(names)) if config.palette is None else config.palette
    if not all(0 <= channel <= 255 for color in palette for channel in color):
        raise InputError(f"{path}: palette must hold values from 0 to 255")
    if len(palette) != len(names):
        raise InputError(f"{path}: palette has {len(palette)} colors for {len(names)} classes")
    package = Package(folder, backend, Classes(names, palette), config.preprocess, config.any_size, config.max_batch)
    package = with_size(package, size)
    if package.any_size:
        return package
    check_forward(path, package.preprocess.size, package.planes, 1)
    most = MOST_BYTES // image_bytes(package.preprocess.size, package.planes)
    return replace(package, max_batch=min(package.max_batch, most))


def check_logits(package: Package, planes: int) -> None:
    """Raises InputError unless so many logits a pixel are one a class, or one less: then none is the background's."""
    names = len(package.classes)
    if planes not in (names, names - 1):
        raise InputError(
            f"{package.folder} names {names} classes but its weights give {planes} logits; class_names.txt must name "
            f"{f'{planes} classes, or ' if planes > 1 else ''}{planes + 1} with a background that has no logit, and "
            "palette a color for each"
        )


def with_size(package: Package, size: Any) -> Package:
    """The package with another size of network input. Raises InputError for what is no `InputSize`."""
    if size is None:
        return package
    if isinstance(size, str) and size == "image":
        return replace(package, any_size=True, size_from="size=")
    sides = isinstance(size, (tuple, list)) and len(size) == 2
    if not (sides and all(isinstance(side, Integral) and not isinstance(side, bool) for side in size)):
        raise InputError(f"size={size!r} must be (height, width) in pixels, or 'image' for every image's own")
    preprocess = replace(package.preprocess, size=(int(size[0]), int(size[1])))
    return replace(package, any_size=False, preprocess=preprocess, size_from="size=")


def _backend(folder: Path) -> str:
    """The engine that a package is for."""
    path = folder / "model_config.json"
    model = _read_json(path)
    backend = inference_config.key(path, model, "backend_type", str)
    for name, value in KIND.items():
        result = model.get(name, value)
        if result != value:
            raise InputError(f"{path}: {name} must be {value!r}, not {result!r}; other models cannot be run")
    if backend == "torch":
        weights = folder / "weights.pt"
        raise InputError(f"{path}: PyTorch packages are ported first: deeplab convert smp {weights} --out NEW_PACKAGE")
    known = ", ".join(WEIGHT_FILES)
    if backend not in WEIGHT_FILES:
        raise InputError(f"{path}: backend_type {backend!r} cannot be run; it must be one of {known}")
    return backend


def _class_names(path: Path) -> tuple[str, ...]:
    check_text(path)
    try:
        lines = path.read_text("utf-8-sig").split("\n")  # not splitlines, which knows rarer ends of lines
        names = tuple(line.strip() for line in lines if line.strip())
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a readable UTF-8 text file: {error}") from None
    if len(names) < 2 or not has_background(names):
        raise InputError(f"{path} must list `background` and at least one more class, one name a line")
    if not len(names) <= MOST_CLASSES:
        raise InputError(f"{path} lists {len(names)} classes; at most {MOST_CLASSES} can be run")
    return names


def _read_json(path: Path) -> Any:
    check_text(path)
    return read_json(path)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
