"""segmentation_models_pytorch 0.3 to 0.6, `DeepLabV3` and `DeepLabV3Plus`, to and from its state dicts."""

import re
from collections.abc import Mapping
from typing import Any

from converters import mapping, torch_encoders
from deeplab_jax.errors import InputError
from deeplab_jax.model_config import ASPPConfig, ModelConfig
from deeplab_jax.models import DeepLab, presets

BRANCHES = 3  # atrous ones, in every model of smp's
PRESETS = {"DeepLabV3": presets.smp_deeplabv3, "DeepLabV3Plus": presets.smp_deeplabv3plus}


def aspp(prefix: str, branches: int) -> mapping.Rules:
    """The pyramid's branches in smp's order: 1x1, the atrous ones, image pooling."""
    return (
        ("aspp.conv1x1.conv", f"{prefix}.convs.0.0"),
        ("aspp.conv1x1.norm", f"{prefix}.convs.0.1"),
        ("aspp.atrous.{i}.conv", f"{prefix}.convs.{{i+1}}.0"),
        ("aspp.atrous.{i}.conv.depthwise", f"{prefix}.convs.{{i+1}}.0.0"),
        ("aspp.atrous.{i}.conv.pointwise", f"{prefix}.convs.{{i+1}}.0.1"),
        ("aspp.atrous.{i}.norm", f"{prefix}.convs.{{i+1}}.1"),
        ("aspp.pool.conv", f"{prefix}.convs.{branches + 1}.1"),
        ("aspp.pool.norm", f"{prefix}.convs.{branches + 1}.2"),
        ("aspp.project.conv", f"{prefix}.project.0"),
        ("aspp.project.norm", f"{prefix}.project.1"),
    )


V3_HEAD = (
    ("aspp.refine.conv", "decoder.conv"),
    ("aspp.refine.norm", "decoder.bn"),
    ("classifier", "segmentation_head.0"),
)

V3PLUS_HEAD = (
    ("aspp.refine.conv.depthwise", "decoder.aspp.1.0"),
    ("aspp.refine.conv.pointwise", "decoder.aspp.1.1"),
    ("aspp.refine.norm", "decoder.aspp.2"),
    ("decoder.low_level_proj.conv", "decoder.block1.0"),
    ("decoder.low_level_proj.norm", "decoder.block1.1"),
    ("decoder.fuse.0.conv.depthwise", "decoder.block2.0.0"),
    ("decoder.fuse.0.conv.pointwise", "decoder.block2.0.1"),
    ("decoder.fuse.0.norm", "decoder.block2.1"),
    ("classifier", "segmentation_head.0"),
)


def names(config: ModelConfig) -> mapping.Rules:
    """Our module names and smp's. Raises InputError where smp cannot build this model."""
    prefix = "encoder.model." if encoder_name(config).startswith("tu-") else "encoder."
    encoder = torch_encoders.names(config.encoder, prefix, flat=True)
    branches = len(config.aspp.atrous_rates)
    if config.decoder:
        return *encoder, *aspp("decoder.aspp.0", branches), *V3PLUS_HEAD
    return *encoder, *aspp("decoder.aspp", branches), *V3_HEAD


def from_state_dict(state_dict: Mapping[str, Any], config: ModelConfig) -> DeepLab:
    """A model in evaluation mode from smp's names -> arrays or tensors. Strict.

    Raises:
        InputError: with every missing, unexpected or misshapen tensor.
    """
    return mapping.load(config, names(config), state_dict, mapping.TORCH)


def to_state_dict(model: DeepLab) -> mapping.Weights:
    """The model's weights under smp's names; loads strictly into the smp model of the same preset.

    Raises:
        InputError: where smp cannot build such a model.
    """
    return mapping.save(model, names(model.config), mapping.TORCH)


def encoder_name(config: ModelConfig) -> str:
    """What smp calls the encoder. Raises InputError where smp cannot build this model."""
    aspp, stride = config.aspp, config.encoder.output_stride
    preset = PRESETS["DeepLabV3Plus" if config.decoder else "DeepLabV3"]
    for name in presets.SMP_ENCODERS:
        if not isinstance(aspp, ASPPConfig) or len(aspp.atrous_rates) != BRANCHES or stride not in (8, 16):
            break
        other = preset(
            name,
            config.num_classes,
            stride,
            in_channels=config.encoder.in_channels,
            decoder_channels=aspp.channels,
            decoder_atrous_rates=aspp.atrous_rates,
            decoder_aspp_separable=aspp.branches != "dense",
            decoder_aspp_dropout=aspp.dropout,
        )
        if other == config:
            return name
    raise InputError(
        "segmentation_models_pytorch builds no such model; see presets.smp_deeplabv3plus for those it does"
    )


def infer_config(
    state_dict: Mapping[str, Any],
    encoder: str | None = None,
    output_stride: int | None = None,
    atrous_rates: tuple[int, ...] | None = None,
    dropout: float | None = None,
) -> ModelConfig:
    """The architecture, read off names and shapes, and what those do not say as it is given.

    Args:
        state_dict: smp's names -> arrays or tensors.
        encoder: its name, where it is not to be read off.
        output_stride: of the encoder; by default smp's default for the architecture.
        atrous_rates: of the pyramid; likewise.
        dropout: of the pyramid, while training; likewise.

    Raises:
        InputError: where this is no smp DeepLab or its encoder is not known.
    """
    plus, shapes = is_plus(state_dict), infer_shapes(state_dict)
    preset = PRESETS["DeepLabV3Plus" if plus else "DeepLabV3"]
    given = {
        "encoder_output_stride": output_stride,
        "decoder_atrous_rates": atrous_rates,
        "decoder_aspp_dropout": dropout,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if atrous_rates is not None:
        mapping.check_rates(atrous_rates, BRANCHES)
    return preset(infer_encoder(state_dict) if encoder is None else encoder, **shapes, **given)


def is_plus(state_dict: Mapping[str, Any]) -> bool:
    """Whether it is a DeepLabV3+."""
    return any(name.startswith("decoder.aspp.0.") for name in state_dict)


def infer_shapes(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """smp's arguments that names and shapes say. Raises InputError where this is no smp DeepLab."""
    prefix = "decoder.aspp.0" if is_plus(state_dict) else "decoder.aspp"
    project, head = f"{prefix}.project.0.weight", "segmentation_head.0.weight"
    for needed in (project, head):
        if needed not in state_dict or len(state_dict[needed].shape) != 4:
            raise InputError(f"these are not the weights of an smp DeepLab: {needed} is missing or no convolution")
    branches = {match[1] for name in state_dict if (match := re.match(rf"{re.escape(prefix)}\.convs\.(\d+)\.", name))}
    if len(branches) != BRANCHES + 2:  # beside the 1x1 and image pooling
        raise InputError(
            f"these are not the weights of an smp DeepLab: {prefix}.convs has {len(branches)} parts, not 5"
        )
    stem = r"encoder\.(model\.)?(conv1|features\.0\.0|stem_0\.conv)\.weight"
    channels = [w.shape[1] for name, w in state_dict.items() if re.fullmatch(stem, name) and len(w.shape) == 4]
    return {
        "classes": state_dict[head].shape[0],
        "in_channels": channels[0] if channels else 3,
        "decoder_channels": state_dict[project].shape[0],
        "decoder_aspp_separable": any(name.startswith(f"{prefix}.convs.1.0.1.") for name in state_dict),
    }


def infer_encoder(state_dict: Mapping[str, Any]) -> str:
    """The encoder's name. Raises InputError for one that is not known."""
    by_timm = any(name.startswith("encoder.model.") for name in state_dict)
    name = torch_encoders.infer(state_dict, "encoder.model." if by_timm else "encoder.")
    if name is None:
        raise InputError(f"the encoder of these weights is none of {', '.join(presets.SMP_ENCODERS)}")
    return f"tu-{name}" if by_timm else name


def modernize(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Names of smp 0.6 for those of older releases, whose DeepLabV3 decoder was a plain sequence."""
    old = {"decoder.0.": "decoder.aspp.", "decoder.1.": "decoder.conv.", "decoder.2.": "decoder.bn."}

    def rename(name: str) -> str:
        return next((new + name.removeprefix(prefix) for prefix, new in old.items() if name.startswith(prefix)), name)

    renamed = {rename(name): value for name, value in state_dict.items()}
    if len(renamed) != len(state_dict):
        twice = next(name for name in state_dict if name != rename(name) and rename(name) in state_dict)
        raise InputError(f"{twice} and {rename(twice)} are the same tensor by an old and a new name; keep one of them")
    return renamed
