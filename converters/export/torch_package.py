"""JAX packages to torch packages: the state dict of segmentation_models_pytorch's DeepLabV3Plus, for the shared API."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from converters import smp
from converters.export.source import Source
from deeplab_jax.errors import InputError, first_line
from deeplab_jax.model_config import ModelConfig
from deeplab_jax.models import DeepLab, presets
from deeplab_jax.models.state import from_arrays, to_arrays
from deeplab_jax.package.folder import Package, write_package


@dataclass(frozen=True)
class Ready:
    """What a torch package will hold."""

    package: Package
    initialization: dict[str, Any]  # what the shared API builds the model with
    state_dict: dict[str, Any]  # PyTorch tensors


def prepare(source: Source) -> Ready:
    """Raises InputError where PyTorch is missing, or the shared API's torch backend cannot build such a model.

    It builds `DeepLabV3Plus` with its defaults.
    """
    try:
        import torch
    except ImportError:
        raise InputError("exporting to PyTorch needs PyTorch: pip install 'deeplab_jax[port]'") from None
    model = without_auxiliary(source.model)
    config = model.config
    initialization = {
        "classes": config.num_classes,
        "in_channels": config.encoder.in_channels,
        "encoder_name": buildable_encoder(config),
    }
    state_dict = {name: torch.from_numpy(array) for name, array in smp.to_state_dict(model).items()}
    return Ready(source.package, initialization, state_dict)


def write(out: Path, ready: Ready) -> None:
    """Writes the package, every tensor bit by bit."""
    import torch

    def save(folder: Path) -> None:
        try:
            torch.save(ready.state_dict, folder / "weights.pt")
        except RuntimeError as error:  # which is what PyTorch makes of an OSError
            raise OSError(first_line(error)) from None

    package = ready.package
    write_package(out, "torch", package.classes, package.preprocess, save, model_initialization=ready.initialization)


def without_auxiliary(model: DeepLab) -> DeepLab:
    """The auxiliary head serves training alone."""
    arrays = {name: array for name, array in to_arrays(model).items() if not name.startswith("aux_head.")}
    return from_arrays(replace(model.config, aux_head=None), arrays)


def buildable_encoder(config: ModelConfig) -> str:
    """smp's name of it. Raises InputError that says what the shared API's torch backend would build instead."""
    other = "export to onnx, which takes every model"
    if config.decoder is None:
        raise InputError(f"a torch package holds a DeepLabV3+, but this is a DeepLabV3 without a decoder; {other}")
    try:
        name = smp.encoder_name(config)
    except InputError as error:
        raise InputError(f"{error}; {other}") from None
    usual = presets.smp_deeplabv3plus(name, config.num_classes, in_channels=config.encoder.in_channels)
    facts = {
        "output stride": lambda config: config.encoder.output_stride,
        "atrous rates": lambda config: config.aspp.atrous_rates,
        "decoder channels": lambda config: config.aspp.channels,
        "3x3 convolutions in the pyramid": lambda config: config.aspp.branches,
    }
    for what, fact in facts.items():
        if fact(config) != fact(usual):
            raise InputError(
                f"a torch package is loaded with segmentation_models_pytorch's default {what}, {fact(usual)}, but this "
                f"model has {fact(config)}; {other}"
            )
    return name
