"""ImageNet classifiers of timm and torchvision: their weights as a DeepLab's encoder, and back."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from converters import rules, torch_encoders
from deeplab_jax.config import from_dict
from deeplab_jax.errors import InputError
from deeplab_jax.models import DeepLab, presets
from deeplab_jax.models.weights import flat_state

CLASSIFIER_HEADS = ("fc.", "head.fc.", "classifier.")


def load_encoder(model: DeepLab, state_dict: Mapping[str, Any]) -> list[str]:
    """Puts a classifier's weights into the model's encoder; returns the names of its own last layer, left aside.

    Raises:
        InputError: with every missing, unexpected or misshapen tensor.
    """
    left = [name for name in state_dict if name.startswith(CLASSIFIER_HEADS)]
    weights = {name: value for name, value in state_dict.items() if name not in left}
    values = rules.read(_tensors(model), weights, rules.TORCH)
    flat = flat_state(model)
    for path, array in values.items():
        flat[path][...] = array
    return left


def encoder_state_dict(model: DeepLab) -> dict[str, np.ndarray]:
    """The encoder's weights under the classifier's names. Raises InputError for an encoder that is not theirs."""
    plain = {"output_stride": 32, "in_channels": 3}
    encoder = replace(model.config.encoder, **plain)
    theirs = [replace(config, **plain) for config in presets.SMP_ENCODERS.values()]
    if encoder not in theirs:
        raise InputError("neither timm nor torchvision builds this encoder; see presets.SMP_ENCODERS for those they do")
    return rules.save(model, torch_encoders.names(model.config.encoder, ""), rules.TORCH, part="encoder")


def infer_encoder(state_dict: Mapping[str, Any]) -> str:
    """What segmentation_models_pytorch calls an encoder of these weights. Raises InputError for one not known."""
    name = torch_encoders.infer(state_dict, "")
    if name is None:
        raise InputError(
            "these are not weights of a ResNet, ResNeXt or Xception of timm or torchvision, nor of torchvision's "
            "MobileNetV2"
        )
    return name if name == "mobilenet_v2" else f"tu-{name}"


def recorded_encoder(recorded: Mapping[str, Any], state_dict: Mapping[str, Any]) -> str:
    """As `infer_encoder`. Raises InputError where the `config.json` of a folder says that it is another one.

    Some networks, such as resnetaa50, have the tensors of another and compute something else.
    """
    inferred, said = infer_encoder(state_dict), recorded.get("architecture")
    if said is not None and not (isinstance(said, str) and plain_name(said) == inferred.removeprefix("tu-")):
        raise InputError(f"config.json: architecture {said!r} is not supported; the nearest is {inferred}")
    return inferred


def plain_name(name: str) -> str:
    """timm's name of an architecture without the tag of its weights: resnet50 for tv_resnet50 and resnet50.a1_in1k."""
    return name.split(".")[0].removeprefix("tv_")


def recorded_normalisation(recorded: Mapping[str, Any]) -> dict[str, tuple[float, float, float]]:
    """`mean` and `std` where the `config.json` of a folder has them. Raises InputError where they are no numbers."""
    settings = recorded.get("pretrained_cfg") or {}
    settings = from_dict(dict, settings, "config.json: pretrained_cfg")
    kind = tuple[float, float, float]
    return {
        name: from_dict(kind, settings[name], f"config.json: pretrained_cfg.{name}")
        for name in ("mean", "std")
        if settings.get(name) is not None
    }


def _tensors(model: DeepLab) -> list[rules.Tensor]:
    return rules.tensors(model, torch_encoders.names(model.config.encoder, ""), rules.TORCH, part="encoder")
