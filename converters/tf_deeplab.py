"""Google's research/deeplab (TensorFlow 1): its variables, by name, to and from our models."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from converters import mapping
from deeplab_jax.config import PreprocessConfig
from deeplab_jax.errors import InputError
from deeplab_jax.model_config import (
    ASPPConfig,
    DPCConfig,
    MobileNetV2Config,
    ModelConfig,
    ResNetConfig,
    XceptionConfig,
)
from deeplab_jax.models import DeepLab, presets


def convolution(own: str, other: str) -> mapping.Rules:
    """A convolution and its BatchNorm, in a ConvNorm and in a scope of variables."""
    return (f"{own}.conv", other), (f"{own}.norm", f"{other}/BatchNorm")


def separable(own: str, other: str) -> mapping.Rules:
    return (
        (f"{own}.conv.depthwise", f"{other}_depthwise"),
        (f"{own}.conv.norm", f"{other}_depthwise/BatchNorm"),
        (f"{own}.conv.pointwise", f"{other}_pointwise"),
        (f"{own}.norm", f"{other}_pointwise/BatchNorm"),
    )


def resnet(config: ResNetConfig) -> mapping.Rules:
    scope = "resnet_v1_101" if config.blocks == presets.RESNETS["resnet101"].blocks else "resnet_v1_50"
    unit = f"{scope}/block{{s}}/unit_{{u+1}}/bottleneck_v1"
    return (
        *convolution("encoder.stem.convs.{i}", f"{scope}/conv1_{{i+1}}" if config.deep_stem else f"{scope}/conv1"),
        ("encoder.stage{s}.{u}.conv{n}", f"{unit}/conv{{n}}"),
        ("encoder.stage{s}.{u}.norm{n}", f"{unit}/conv{{n}}/BatchNorm"),
        *convolution("encoder.stage{s}.{u}.shortcut", f"{unit}/shortcut"),
    )


def xception(config: XceptionConfig) -> mapping.Rules:
    scope = next(
        name
        for name, other in presets.TF_ENCODERS.items()
        if isinstance(other, XceptionConfig) and (other.entry, other.middle) == (config.entry, config.middle)
    )
    flows = [f"entry_flow/block{i + 1}/unit_1" for i in range(len(config.entry))]
    flows += [f"middle_flow/block1/unit_{i + 1}" for i in range(config.middle)]
    flows += ["exit_flow/block1/unit_1", "exit_flow/block2/unit_1"]
    table = [
        *convolution("encoder.stem.first", f"{scope}/entry_flow/conv1_1"),
        ("encoder.stem.second", f"{scope}/entry_flow/conv1_2"),
        ("encoder.stem.norm", f"{scope}/entry_flow/conv1_2/BatchNorm"),
    ]
    for index, flow in enumerate(flows):
        unit = f"{scope}/{flow}/xception_module"
        table += separable(f"encoder.blocks.{index}.convs.{{j}}", f"{unit}/separable_conv{{j+1}}")
        table += convolution(f"encoder.blocks.{index}.shortcut", f"{unit}/shortcut")
    return table


def mobilenet_v2(config: MobileNetV2Config) -> mapping.Rules:
    first, unit = "MobilenetV2/expanded_conv", "MobilenetV2/expanded_conv_{i}"
    return (
        *convolution("encoder.stem", "MobilenetV2/Conv"),
        ("encoder.blocks.0.depthwise", f"{first}/depthwise"),
        ("encoder.blocks.0.depthwise_norm", f"{first}/depthwise/BatchNorm"),
        *convolution("encoder.blocks.0.project", f"{first}/project"),
        *convolution("encoder.blocks.{i}.expand", f"{unit}/expand"),
        ("encoder.blocks.{i}.depthwise", f"{unit}/depthwise"),
        ("encoder.blocks.{i}.depthwise_norm", f"{unit}/depthwise/BatchNorm"),
        *convolution("encoder.blocks.{i}.project", f"{unit}/project"),
    )


ENCODERS = {ResNetConfig: resnet, XceptionConfig: xception, MobileNetV2Config: mobilenet_v2}

HEAD = (
    *convolution("aspp.pool", "image_pooling"),
    *convolution("aspp.conv1x1", "aspp0"),
    *separable("aspp.atrous.{i}", "aspp{i+1}"),
    *convolution("aspp.project", "concat_projection"),
    *convolution("decoder.low_level_proj", "decoder/feature_projection0"),
    *separable("decoder.fuse.{i}", "decoder/decoder_conv{i}"),
    ("classifier", "logits/semantic"),
)

DENSE_ASPP = convolution("aspp.atrous.{i}", "aspp{i+1}")
DENSE_DECODER = convolution("decoder.fuse.{i}", "decoder/decoder_conv0/decoder_conv0_{i+1}")

CELL = (
    *separable("aspp.branches.{i}", "meta_architecture/branch{i}"),
    *convolution("aspp.project", "meta_architecture/concat_projection"),
)


def names(config: ModelConfig) -> mapping.Rules:
    """Our module names and its own, for this architecture."""
    table = list(ENCODERS[type(config.encoder)](config.encoder))
    if isinstance(config.aspp, DPCConfig):
        table += CELL
    elif config.aspp.branches == "dense":
        table += DENSE_ASPP
    if config.decoder and config.decoder.fuse == "dense":
        table += DENSE_DECODER
    return *table, *HEAD


def from_variables(variables: Mapping[str, Any], config: ModelConfig) -> DeepLab:
    """A model in evaluation mode from variable names -> arrays. Strict.

    Raises:
        InputError: with every missing, unexpected or misshapen variable.
    """
    return mapping.load(config, names(config), variables, mapping.TENSORFLOW)


def to_variables(model: DeepLab) -> mapping.Weights:
    """The model's weights under their names, in TensorFlow's layouts.

    Raises:
        InputError: where research/deeplab builds no such model.
    """
    model_variant(model.config)
    return mapping.save(model, names(model.config), mapping.TENSORFLOW)


def model_variant(config: ModelConfig) -> str:
    """What research/deeplab calls the encoder. Raises InputError where it cannot build this model."""
    encoder, aspp, decoder = config.encoder, config.aspp, config.decoder
    kinds = [aspp.branches] if isinstance(aspp, ASPPConfig) and aspp.atrous_rates else []
    kinds += [decoder.fuse] if decoder else []
    for name, other in presets.TF_ENCODERS.items():
        if type(other) is not type(encoder) or encoder.output_stride == 32:
            continue
        multiplier = 1.0
        if isinstance(encoder, MobileNetV2Config):
            multiplier = depth_multiplier(encoder.stem, encoder.stages[-1][1])
            if not 0.1 <= multiplier <= 4:
                continue
        built = presets.tf_deeplab(
            name,
            config.num_classes,
            encoder.output_stride,
            atrous_rates=aspp.atrous_rates if isinstance(aspp, ASPPConfig) else None,
            decoder=decoder is not None,
            dense_prediction_cell=isinstance(aspp, DPCConfig),
            separable="dense" not in kinds,
            depth_multiplier=multiplier,
            multi_grid=None if isinstance(encoder, MobileNetV2Config) else encoder.multi_grid,
            in_channels=encoder.in_channels,
        )
        if replace(built, aspp=replace(built.aspp, dropout=aspp.dropout)) == config:
            return name
    raise InputError("research/deeplab builds no such model; see presets.tf_deeplab for those it does")


def infer_config(
    variables: Mapping[str, Any],
    output_stride: int | None = None,
    atrous_rates: tuple[int, ...] | None = None,
    multi_grid: tuple[int, ...] | None = None,
) -> ModelConfig:
    """The architecture, read off names and shapes.

    Args:
        variables: names -> arrays.
        output_stride: of the encoder; no variable records it, so by default 8, at which Google exports its models.
        atrous_rates: of the pyramid, where it has any; by default 12, 24, 36 at output stride 8 and half that at 16.
        multi_grid: factors on the dilations of the last stage; by default 1, 2, 4 for the beta ResNets.

    Raises:
        InputError: where these are not the variables of a DeepLab with a known encoder.
    """
    variant, stem = infer_variant(variables)
    for name in (stem, "logits/semantic/weights"):
        if name not in variables or len(variables[name].shape) != 4:
            raise InputError(f"these are not the variables of research/deeplab: {name} is missing or no convolution")
    *_, in_channels, width = variables[stem].shape
    branches = len({match[1] for name in variables if (match := re.match(r"aspp([1-9]\d*)[_/]", name))})
    if atrous_rates and not branches:
        raise InputError(
            "these variables have no atrous branches whose rates could be chosen; leave --atrous-rates out"
        )
    if branches:
        factor = 16 // (output_stride or 8)
        atrous_rates = atrous_rates or (6 * factor, 12 * factor, 18 * factor)
        mapping.check_rates(atrous_rates, branches)
    return presets.tf_deeplab(
        variant,
        variables["logits/semantic/weights"].shape[-1],
        output_stride or 8,
        atrous_rates=atrous_rates or (),
        decoder=any(name.startswith("decoder/") for name in variables),
        dense_prediction_cell=any(name.startswith("meta_architecture/") for name in variables),
        separable=not any(
            name in variables for name in ("aspp1/weights", "decoder/decoder_conv0/decoder_conv0_1/weights")
        ),
        depth_multiplier=depth_multiplier(width, last_width(variables)) if variant == "mobilenet_v2" else 1.0,
        multi_grid=multi_grid,
        in_channels=in_channels,
    )


def last_width(variables: Mapping[str, Any]) -> int:
    last = variables.get("MobilenetV2/expanded_conv_16/project/weights")
    return 0 if last is None or not last.shape else last.shape[-1]


def depth_multiplier(first: int, last: int) -> float:
    """MobileNetV2's, from the widths of its first convolution and last unit: a published one, or the first width's."""
    for multiplier in (1.0, 0.25, 0.35, 0.5, 0.7, 0.75, 1.3, 1.4):
        config = presets.thin(presets.MOBILENET_V2, multiplier)
        if (config.stem, config.stages[-1][1]) == (first, last):
            return multiplier
    return first / presets.MOBILENET_V2.stem


def infer_variant(variables: Mapping[str, Any]) -> tuple[str, str]:
    """The encoder's `model_variant`, and the name of its first convolution's kernel."""
    scopes = {name.split("/")[0] for name in variables}
    for variant, config in presets.TF_ENCODERS.items():
        first = next(other for own, other in ENCODERS[type(config)](config) if own.startswith("encoder.stem."))
        stem = f"{first.replace('{i+1}', '1')}/weights"
        if stem.split("/")[0] in scopes and (not isinstance(config, ResNetConfig) or stem in variables):
            return variant, stem
    known = ", ".join(presets.TF_ENCODERS)
    raise InputError(
        f"these variables belong to none of the encoders {known}; their scopes are {', '.join(sorted(scopes))}"
    )


def preprocessing(config: ModelConfig, size: tuple[int, int]) -> PreprocessConfig:
    """Images as the original takes them: padded with the mean, x / 127.5 - 1, or mean-free for the plain ResNets."""
    if isinstance(config.encoder, ResNetConfig) and not config.encoder.deep_stem:
        mean = 123.15 / 255, 115.90 / 255, 103.06 / 255
        return PreprocessConfig(size, "pad", mean, (1 / 255, 1 / 255, 1 / 255), padding_value=None)
    return PreprocessConfig(size, "pad", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), padding_value=None)
