"""Names of encoders in PyTorch: torchvision's and timm's, which segmentation_models_pytorch prefixes."""

import re
from collections.abc import Mapping
from typing import Any

from converters.mapping import Rules
from deeplab_jax.model_config import EncoderConfig, MobileNetV2Config, ResNetConfig, XceptionConfig
from deeplab_jax.models.presets import RESNETS, XCEPTIONS


def names(config: EncoderConfig, prefix: str, flat: bool = False) -> Rules:
    """Our module names and the other library's.

    Args:
        config: the encoder.
        prefix: what their names begin with, such as `encoder.`.
        flat: Xception's sequences are spelled `blocks_0`, as timm's feature extractors do, not `blocks.0`.
    """
    return RULES[type(config)](config, prefix, flat)


def resnet(config: ResNetConfig, prefix: str, flat: bool) -> Rules:
    return (
        ("encoder.stem.convs.0.conv", f"{prefix}conv1"),
        ("encoder.stem.convs.0.norm", f"{prefix}bn1"),
        ("encoder.stage{s}.{b}.conv{n}", f"{prefix}layer{{s}}.{{b}}.conv{{n}}"),
        ("encoder.stage{s}.{b}.norm{n}", f"{prefix}layer{{s}}.{{b}}.bn{{n}}"),
        ("encoder.stage{s}.{b}.shortcut.conv", f"{prefix}layer{{s}}.{{b}}.downsample.0"),
        ("encoder.stage{s}.{b}.shortcut.norm", f"{prefix}layer{{s}}.{{b}}.downsample.1"),
    )


def xception(config: XceptionConfig, prefix: str, flat: bool) -> Rules:
    stem, blocks = (f"{prefix}{name}{'_' if flat else '.'}" for name in ("stem", "blocks"))
    return (
        ("encoder.stem.first.conv", f"{stem}0.conv"),
        ("encoder.stem.first.norm", f"{stem}0.bn"),
        ("encoder.stem.second", f"{stem}1" if config.pre_activation else f"{stem}1.conv"),
        ("encoder.stem.norm", f"{stem}1.bn"),
        ("encoder.blocks.{i}.shortcut.conv", f"{blocks}{{i}}.shortcut.conv"),
        ("encoder.blocks.{i}.shortcut.norm", f"{blocks}{{i}}.shortcut.bn"),
        ("encoder.blocks.{i}.convs.{j}.conv.depthwise", f"{blocks}{{i}}.stack.conv{{j+1}}.conv_dw"),
        ("encoder.blocks.{i}.convs.{j}.conv.norm", f"{blocks}{{i}}.stack.conv{{j+1}}.bn_dw"),
        ("encoder.blocks.{i}.convs.{j}.conv.pointwise", f"{blocks}{{i}}.stack.conv{{j+1}}.conv_pw"),
        ("encoder.blocks.{i}.convs.{j}.norm", f"{blocks}{{i}}.stack.conv{{j+1}}.bn_pw"),
        # xception41p and 65p
        ("encoder.blocks.{i}.shortcut", f"{blocks}{{i}}.shortcut"),
        ("encoder.blocks.{i}.norms.0", f"{blocks}{{i}}.norm"),
        ("encoder.blocks.{i}.norms.{j}", f"{blocks}{{i}}.stack.conv{{j+1}}.norm"),
        ("encoder.blocks.{i}.convs.{j}.depthwise", f"{blocks}{{i}}.stack.conv{{j+1}}.conv_dw"),
        ("encoder.blocks.{i}.convs.{j}.pointwise", f"{blocks}{{i}}.stack.conv{{j+1}}.conv_pw"),
    )


def mobilenet_v2(config: MobileNetV2Config, prefix: str, flat: bool) -> Rules:
    features = f"{prefix}features"
    last = sum(count for _, _, count, _ in config.stages) + 1
    return (
        ("encoder.stem.conv", f"{features}.0.0"),
        ("encoder.stem.norm", f"{features}.0.1"),
        ("encoder.blocks.0.depthwise", f"{features}.1.conv.0.0"),
        ("encoder.blocks.0.depthwise_norm", f"{features}.1.conv.0.1"),
        ("encoder.blocks.0.project.conv", f"{features}.1.conv.1"),
        ("encoder.blocks.0.project.norm", f"{features}.1.conv.2"),
        ("encoder.blocks.{i}.expand.conv", f"{features}.{{i+1}}.conv.0.0"),
        ("encoder.blocks.{i}.expand.norm", f"{features}.{{i+1}}.conv.0.1"),
        ("encoder.blocks.{i}.depthwise", f"{features}.{{i+1}}.conv.1.0"),
        ("encoder.blocks.{i}.depthwise_norm", f"{features}.{{i+1}}.conv.1.1"),
        ("encoder.blocks.{i}.project.conv", f"{features}.{{i+1}}.conv.2"),
        ("encoder.blocks.{i}.project.norm", f"{features}.{{i+1}}.conv.3"),
        ("encoder.head.conv", f"{features}.{last}.0"),
        ("encoder.head.norm", f"{features}.{last}.1"),
    )


RULES = {ResNetConfig: resnet, XceptionConfig: xception, MobileNetV2Config: mobilenet_v2}


def infer(weights: Mapping[str, Any], prefix: str) -> str | None:
    """The encoder's name in torchvision or timm, read off the names and shapes after the prefix; None for others."""
    shapes = {name.removeprefix(prefix): tuple(w.shape) for name, w in weights.items() if name.startswith(prefix)}
    stages = [len({name.split(".")[1] for name in shapes if name.startswith(f"layer{s}.")}) for s in (1, 2, 3, 4)]
    bottleneck = any(name.endswith("conv3.weight") for name in shapes)
    grouped = {shape[:2] for name, shape in shapes.items() if re.fullmatch(r"layer1\.\d+\.conv2\.weight", name)}
    for name, config in RESNETS.items():
        width = config.groups * config.group_width
        same = config.blocks == tuple(stages) and config.bottleneck == bottleneck
        if same and grouped == {(width, width // config.groups)}:
            return name
    blocks = {re.split("[._]", name)[1] for name in shapes if re.match(r"blocks[._]\d+\.", name)}
    pre_activation = any(re.match(r"blocks[._]\d+\.norm\.", name) for name in shapes)
    for name, config in XCEPTIONS.items():
        if len(blocks) == len(config.entry) + config.middle + 2 and config.pre_activation == pre_activation:
            return name
    return "mobilenet_v2" if any(name.startswith("features.18.0.") for name in shapes) else None
