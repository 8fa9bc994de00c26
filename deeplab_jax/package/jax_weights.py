"""The weights of a JAX package: architecture.json and weights.safetensors, read and written."""

from pathlib import Path

import safetensors
from safetensors.numpy import save as to_bytes

from deeplab_jax.classes import Classes
from deeplab_jax.config import PreprocessConfig
from deeplab_jax.errors import InputError
from deeplab_jax.model_config import ModelConfig
from deeplab_jax.models import DeepLab
from deeplab_jax.models.state import from_arrays, to_arrays
from deeplab_jax.package.folder import Package, check_logits, one_logit_tells, with_background, write_package
from deeplab_jax.package.limits import check_text
from deeplab_jax.serialization import load_json, save_json


def open_model(package: Package) -> DeepLab:
    """`load_model`. Raises InputError also where the network's input or logits are not what the package says."""
    model = load_model(package.folder)
    channels, wanted = model.config.encoder.in_channels, package.preprocess.channels
    if channels != wanted:
        raise InputError(
            f"{package.folder / 'inference_config.json'}: input_channels must be {channels}, as the weights take, not "
            f"{wanted}"
        )
    check_logits(package, model.config.num_classes)
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
