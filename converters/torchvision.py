"""torchvision's `deeplabv3_resnet50` and `deeplabv3_resnet101`, with or without auxiliary head."""

from collections.abc import Collection, Mapping
from typing import Any

from converters import mapping, smp, torch_encoders
from converters.recorded import Setting, integer, integers, show
from deeplab_jax.errors import InputError
from deeplab_jax.model_config import ModelConfig
from deeplab_jax.models import DeepLab, presets

HEAD = (
    *smp.aspp("classifier.0", branches=3),
    ("aspp.refine.conv", "classifier.1"),
    ("aspp.refine.norm", "classifier.2"),
    ("classifier", "classifier.4"),
    ("aux_head.hidden.conv", "aux_classifier.0"),
    ("aux_head.hidden.norm", "aux_classifier.1"),
    ("aux_head.classifier", "aux_classifier.4"),
)


def names(config: ModelConfig) -> mapping.Rules:
    """Our module names and torchvision's, for this architecture."""
    return *torch_encoders.names(config.encoder, "backbone."), *HEAD


def from_state_dict(state_dict: Mapping[str, Any], config: ModelConfig) -> DeepLab:
    """A model in evaluation mode from torchvision's names -> arrays or tensors. Strict.

    Raises:
        InputError: with every missing, unexpected or misshapen tensor.
    """
    backbone_name(config)
    return mapping.load(config, names(config), state_dict, mapping.TORCH)


def to_state_dict(model: DeepLab) -> mapping.Weights:
    """The model's weights under torchvision's names. Raises InputError where torchvision builds no such model."""
    backbone_name(model.config)
    return mapping.save(model, names(model.config), mapping.TORCH)


def backbone_name(config: ModelConfig) -> str:
    """Raises InputError where torchvision builds no such model."""
    for name in ("resnet50", "resnet101"):
        if config == presets.torchvision_deeplabv3(name, config.num_classes, config.aux_head is not None):
            return name
    raise InputError("torchvision builds no such model; see presets.torchvision_deeplabv3 for those it does")


def infer_config(state_dict: Mapping[str, Any]) -> ModelConfig:
    """The architecture, read off names and shapes. Raises InputError where this is none of torchvision's."""
    backbone = torch_encoders.infer(state_dict, "backbone.")
    head = state_dict.get("classifier.4.weight")
    if backbone not in ("resnet50", "resnet101") or head is None or len(head.shape) != 4:
        raise InputError("these are not the weights of torchvision's deeplabv3_resnet50 or deeplabv3_resnet101")
    aux = any(name.startswith("aux_classifier.") for name in state_dict)
    return presets.torchvision_deeplabv3(backbone, head.shape[0], aux)


def check_settings(config: ModelConfig, settings: Collection[Setting]) -> None:
    """Raises InputError where a file records another output stride, or other rates, than torchvision's models have."""
    kinds = {
        "encoder_output_stride": (integer, config.encoder.output_stride),
        "decoder_atrous_rates": (integers, config.aspp.atrous_rates),
    }
    for setting in settings:
        read, own = kinds.get(setting.name, (lambda _: None, None))
        if read(setting.value) not in (None, own):
            raise InputError(
                f"{setting.says}, but torchvision's models have {show(own)}, and others cannot be converted. If that "
                "is not said of this model, save model.state_dict() alone"
            )


def without_foreign_auxiliary(state_dict: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The weights without an auxiliary head for other classes, as fine-tuning leaves one behind; and its names."""
    heads = [state_dict.get(f"{head}.4.weight") for head in ("classifier", "aux_classifier")]
    main, auxiliary = (weight.shape[:1] if weight is not None else None for weight in heads)
    foreign = auxiliary is not None and auxiliary != main
    left = [name for name in state_dict if foreign and name.startswith("aux_classifier.")]
    return {name: value for name, value in state_dict.items() if name not in left}, left
