"""Runs architecture.json and weights.safetensors with JAX."""

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from deeplab_jax.errors import InputError, first_line
from deeplab_jax.inference.backends import Backend, Logits, NetworkInput
from deeplab_jax.inference.backends.device import parse_device
from deeplab_jax.package.folder import Package
from deeplab_jax.package.jax_weights import open_model


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
