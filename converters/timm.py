"""ImageNet classifiers of timm and torchvision: their weights as a DeepLab's encoder, and back."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from converters import rules, torch_encoders
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


def _tensors(model: DeepLab) -> list[rules.Tensor]:
    return rules.tensors(model, torch_encoders.names(model.config.encoder, ""), rules.TORCH, part="encoder")
