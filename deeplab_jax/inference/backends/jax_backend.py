"""Runs architecture.json and weights.safetensors with JAX, and writes such packages."""

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
from flax import nnx
from safetensors.numpy import save as to_bytes

from deeplab_jax.classes import Classes
from deeplab_jax.config import PreprocessConfig
from deeplab_jax.errors import InputError, first_line
from deeplab_jax.inference.backends import Backend, Logits, NetworkInput
from deeplab_jax.inference.backends.device import parse_device
from deeplab_jax.model_config import ModelConfig
from deeplab_jax.models import DeepLab
from deeplab_jax.models.state import from_arrays, to_arrays
from deeplab_jax.package.folder import Package, one_logit_tells, with_background, write_package
from deeplab_jax.package.limits import check_text
from deeplab_jax.serialization import load_json, save_json


def load(package: Package, device: str | None) -> Backend:
    keep_compilations()
    where = find_device(device)
    model = open_model(package)
    graph, state = nnx.split(model)
    state = jax.device_put(state, where)

    @jax.jit
    def logits(state, images):
        return nnx.merge(graph, state)(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)

    def run(images: NetworkInput) -> Logits:
        count = len(images)
        # One compilation for each power of two, not for each number of images.
        fill = (1 << (count - 1).bit_length()) - count
        if fill:
            images = np.pad(images, [(0, fill), (0, 0), (0, 0), (0, 0)])
        try:
            return np.asarray(logits(state, jax.device_put(images, where)))[:count]
        except jax.errors.JaxRuntimeError as error:  # the device's memory is full, mostly
            shape = "x".join(map(str, images.shape))
            raise InputError(f"{package.folder} cannot be run on input of {shape}: {first_line(error)}") from error

    return run


def find_device(name: str | None) -> Any:
    """Raises InputError where JAX has none of that name."""
    if name is None:
        return jax.devices()[0]
    kind, number = parse_device(name)
    try:
        return jax.devices(kind)[number]
    except (RuntimeError, IndexError):
        known = ", ".join(str(device) for device in jax.devices())
        raise InputError(f"JAX here has no device {name!r}; it has {known}") from None


def keep_compilations() -> None:
    """Programs are compiled once for all processes of this user, unless he has said where they are kept."""
    if jax.config.jax_compilation_cache_dir is not None:  # pyright: ignore[reportAttributeAccessIssue]
        return
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "deeplab_jax")
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # a home that cannot be written to, or none, as in containers
        return
    if os.access(folder, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(folder))


def open_model(package: Package) -> DeepLab:
    """`load_model`. Raises InputError also where the network takes other images than the package says."""
    model = load_model(package.folder)
    channels, wanted = model.config.encoder.in_channels, package.preprocess.channels
    if channels != wanted:
        raise InputError(
            f"{package.folder}: the network takes {channels} channels, but inference_config.json says {wanted}"
        )
    return model


def load_model(folder: Path) -> DeepLab:
    """The model of a JAX package, in evaluation mode. Raises InputError that names the file."""
    check_text(folder / "architecture.json")
    config = load_json(ModelConfig, folder / "architecture.json")
    path = folder / "weights.safetensors"
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, MemoryError, safetensors.SafetensorError) as error:
        raise InputError(f"{path} is not a readable safetensors file: {error}") from None
    try:
        return from_arrays(config, arrays)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def save(folder: Path, model: DeepLab, classes: Classes, preprocess: PreprocessConfig) -> None:
    """Writes a JAX package; `classes` are those of the model's logits, with or without background where it is one.

    Raises InputError where they do not fit.
    """
    logits = model.config.num_classes
    if len(classes) != logits and not (logits == 1 and one_logit_tells(classes.names)):
        raise InputError(f"there are {len(classes)} class names but the model has {logits} classes")

    if model.config.encoder.in_channels != 3:
        raise InputError(
            f"a package takes RGB images, but this model takes {model.config.encoder.in_channels} channels"
        )

    def write_weights(folder: Path) -> None:
        save_json(model.config, folder / "architecture.json")
        # Not with save_file, whose file is for its owner alone.
        (folder / "weights.safetensors").write_bytes(to_bytes(to_arrays(model)))

    write_package(folder, "jax", with_background(classes), preprocess, write_weights)
