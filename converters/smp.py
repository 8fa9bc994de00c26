"""segmentation_models_pytorch 0.4 to 0.6, `DeepLabV3` and `DeepLabV3Plus`, to and from its state dicts."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from converters import rules
from deeplab_jax.config import ModelConfig
from deeplab_jax.errors import InputError
from deeplab_jax.models import DeepLab, presets

RESNET = (
    ("encoder.conv1", "encoder.conv1"),
    ("encoder.norm1", "encoder.bn1"),
    ("encoder.stage{s}.{b}.conv{n}", "encoder.layer{s}.{b}.conv{n}"),
    ("encoder.stage{s}.{b}.norm{n}", "encoder.layer{s}.{b}.bn{n}"),
    ("encoder.stage{s}.{b}.shortcut.conv", "encoder.layer{s}.{b}.downsample.0"),
    ("encoder.stage{s}.{b}.shortcut.norm", "encoder.layer{s}.{b}.downsample.1"),
)


def aspp(prefix: str, branches: int) -> rules.Rules:
    """The pyramid's branches in smp's order: 1x1, the atrous ones, image pooling."""
    return (
        ("aspp.point.conv", f"{prefix}.convs.0.0"),
        ("aspp.point.norm", f"{prefix}.convs.0.1"),
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
    ("decoder.reduce.conv", "decoder.block1.0"),
    ("decoder.reduce.norm", "decoder.block1.1"),
    ("decoder.fuse.conv.depthwise", "decoder.block2.0.0"),
    ("decoder.fuse.conv.pointwise", "decoder.block2.0.1"),
    ("decoder.fuse.norm", "decoder.block2.1"),
    ("classifier", "segmentation_head.0"),
)


def names(config: ModelConfig) -> rules.Rules:
    """Our module names and smp's, for this architecture."""
    branches = len(config.aspp.rates)
    if config.decoder:
        return *RESNET, *aspp("decoder.aspp.0", branches), *V3PLUS_HEAD
    return *RESNET, *aspp("decoder.aspp", branches), *V3_HEAD


def from_state_dict(state_dict: Mapping[str, Any], config: ModelConfig) -> DeepLab:
    """A model in evaluation mode from smp's names -> arrays or tensors. Strict.

    Raises:
        InputError: with every missing, unexpected or misshapen tensor.
    """
    return rules.load_torch(config, names(config), state_dict)


def to_state_dict(model: DeepLab) -> dict[str, np.ndarray]:
    """The model's weights under smp's names; loads strictly into the smp model of the same preset."""
    return rules.save_torch(model, names(model.config))


def infer_config(
    state_dict: Mapping[str, Any],
    encoder: str | None = None,
    output_stride: int | None = None,
    atrous_rates: tuple[int, ...] = (12, 24, 36),
) -> ModelConfig:
    """The architecture, read off names and shapes.

    Args:
        state_dict: smp's names -> arrays or tensors.
        encoder: its name, where it is not to be read off.
        output_stride: of the encoder; no state dict records it, so smp's default for the architecture is taken.
        atrous_rates: of the pyramid; no state dict records them either.

    Raises:
        InputError: where this is no smp DeepLab or its encoder is not known.
    """
    plus = "decoder.aspp.0.project.0.weight" in state_dict
    prefix = "decoder.aspp.0" if plus else "decoder.aspp"
    needed = (f"{prefix}.project.0.weight", "segmentation_head.0.weight", "encoder.conv1.weight")
    absent = [name for name in needed if name not in state_dict]
    if absent:
        raise InputError(f"these are not the weights of an smp DeepLab with a ResNet encoder: {absent[0]} is missing")
    preset, default_stride = (presets.smp_deeplabv3plus, 16) if plus else (presets.smp_deeplabv3, 8)
    return preset(
        encoder or infer_encoder(state_dict),
        state_dict["segmentation_head.0.weight"].shape[0],
        output_stride or default_stride,
        in_channels=state_dict["encoder.conv1.weight"].shape[1],
        decoder_channels=state_dict[f"{prefix}.project.0.weight"].shape[0],
        decoder_atrous_rates=atrous_rates,
        decoder_aspp_separable=f"{prefix}.convs.1.0.1.weight" in state_dict,
    )


def infer_encoder(state_dict: Mapping[str, Any]) -> str:
    """The encoder's name, by the number of its blocks."""
    found = {match[1] for name in state_dict if (match := re.match(r"encoder\.(layer\d+\.\d+)\.conv1\.", name))}
    bottleneck = "encoder.layer1.0.conv3.weight" in state_dict
    for name, (blocks, has_bottleneck) in presets.RESNETS.items():
        if bottleneck == has_bottleneck and found == {f"layer{s + 1}.{b}" for s in range(4) for b in range(blocks[s])}:
            return name
    raise InputError(f"the encoder of these weights is none of {', '.join(presets.RESNETS)}")
