"""Models that others ship, spelled out field by field."""

from dataclasses import replace
from typing import Any

from deeplab_jax.errors import InputError
from deeplab_jax.model_config import (
    ASPPConfig,
    AuxHeadConfig,
    DecoderConfig,
    DPCConfig,
    EncoderConfig,
    MobileNetV2Config,
    ModelConfig,
    ResNetConfig,
    XceptionConfig,
)

RESNETS = {  # as torchvision builds them
    "resnet18": ResNetConfig((2, 2, 2, 2), False, 32, "after-strided-block"),
    "resnet34": ResNetConfig((3, 4, 6, 3), False, 32, "after-strided-block"),
    "resnet50": ResNetConfig((3, 4, 6, 3), True, 32, "after-strided-block"),
    "resnet101": ResNetConfig((3, 4, 23, 3), True, 32, "after-strided-block"),
    "resnet152": ResNetConfig((3, 8, 36, 3), True, 32, "after-strided-block"),
    "resnext50_32x4d": ResNetConfig((3, 4, 6, 3), True, 32, "after-strided-block", groups=32, group_width=4),
    "resnext101_32x8d": ResNetConfig((3, 4, 23, 3), True, 32, "after-strided-block", groups=32, group_width=8),
}

ENTRY_41_65 = ((128, 2), (256, 2), (728, 2))
ENTRY_71 = ((128, 2), (256, 1), (256, 2), (728, 1), (728, 2))

XCEPTIONS = {  # as timm builds them
    "xception41": XceptionConfig(ENTRY_41_65, 8, 32, "after-relu"),
    "xception65": XceptionConfig(ENTRY_41_65, 16, 32, "after-relu"),
    "xception71": XceptionConfig(ENTRY_71, 16, 32, "after-relu"),
    "xception41p": XceptionConfig(ENTRY_41_65, 8, 32, "before-relu", pre_activation=True, epsilon=1e-5),
    "xception65p": XceptionConfig(ENTRY_41_65, 16, 32, "before-relu", pre_activation=True),
}

MOBILENET_V2 = MobileNetV2Config(  # as torchvision builds it
    stages=((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
    output_stride=32,
    dilation_rule="after-strided-block",
    low_level="block",
    head=1280,
)


# segmentation_models_pytorch dilates whole stages of its own encoders; "tu-" ones are built by timm, which does not.
SMP_ENCODERS: dict[str, EncoderConfig] = {
    **{name: replace(config, dilation_rule="whole-stage") for name, config in RESNETS.items()},
    "mobilenet_v2": replace(MOBILENET_V2, dilation_rule="whole-stage"),
    **{f"tu-{name}": config for name, config in (*RESNETS.items(), *XCEPTIONS.items())},
}

_TF_RESNET = {"stride_block": "last", "low_level": "residual", "pool_padding": "same"}
_TF_RESNET_BETA = {**_TF_RESNET, "deep_stem": (64, 64, 128), "multi_grid": (1, 2, 4)}

_TF_XCEPTION = {"low_level": "before-relu", "keeps_projections": True}

TF_ENCODERS: dict[str, EncoderConfig] = {  # model_variant of research/deeplab
    "resnet_v1_50": replace(RESNETS["resnet50"], **_TF_RESNET),
    "resnet_v1_101": replace(RESNETS["resnet101"], **_TF_RESNET),
    "resnet_v1_50_beta": replace(RESNETS["resnet50"], **_TF_RESNET_BETA),
    "resnet_v1_101_beta": replace(RESNETS["resnet101"], **_TF_RESNET_BETA),
    "xception_41": replace(XCEPTIONS["xception41"], **_TF_XCEPTION),
    "xception_65": replace(XCEPTIONS["xception65"], **_TF_XCEPTION),
    "xception_71": replace(XCEPTIONS["xception71"], **_TF_XCEPTION),
    "mobilenet_v2": replace(MOBILENET_V2, low_level="expansion", head=None, padding="same", epsilon=1e-3),
}


def choose(encoders: dict[str, EncoderConfig], name: str, output_stride: int, in_channels: int) -> EncoderConfig:
    if name not in encoders:
        raise InputError(f"encoder {name!r} is not known; choose one of {', '.join(encoders)}")
    if output_stride not in (8, 16):
        raise InputError(f"encoder_output_stride={output_stride} is not possible; choose 8 or 16")
    return replace(encoders[name], output_stride=output_stride, in_channels=in_channels)


def smp_deeplabv3(
    encoder: str = "resnet34",
    classes: int = 1,
    encoder_output_stride: int = 8,
    *,
    in_channels: int = 3,
    decoder_channels: int = 256,
    decoder_atrous_rates: tuple[int, ...] = (12, 24, 36),
    decoder_aspp_separable: bool = False,
    decoder_aspp_dropout: float = 0.5,
) -> ModelConfig:
    """segmentation_models_pytorch 0.6 `DeepLabV3`; arguments and defaults are its own."""
    return ModelConfig(
        num_classes=classes,
        encoder=choose(SMP_ENCODERS, encoder, encoder_output_stride, in_channels),
        aspp=ASPPConfig(
            atrous_rates=decoder_atrous_rates,
            channels=decoder_channels,
            branches="separable" if decoder_aspp_separable else "dense",
            refine="dense",
            dropout=decoder_aspp_dropout,
        ),
        decoder=None,
        align_corners=True,
    )


def smp_deeplabv3plus(
    encoder: str = "resnet34",
    classes: int = 1,
    encoder_output_stride: int = 16,
    *,
    decoder_channels: int = 256,
    decoder_aspp_separable: bool = True,
    **options: Any,
) -> ModelConfig:
    """segmentation_models_pytorch 0.6 `DeepLabV3Plus`; arguments and defaults are its own, `options` as above."""
    options |= {"decoder_channels": decoder_channels, "decoder_aspp_separable": decoder_aspp_separable}
    config = smp_deeplabv3(encoder, classes, encoder_output_stride, **options)
    return replace(
        config,
        aspp=replace(config.aspp, refine="separable"),
        decoder=DecoderConfig(low_level_channels=48, channels=decoder_channels, fuse="separable", depth=1),
    )


def torchvision_deeplabv3(backbone: str = "resnet50", num_classes: int = 21, aux_loss: bool = True) -> ModelConfig:
    """torchvision's `deeplabv3_resnet50` and `deeplabv3_resnet101`."""
    backbones: dict[str, EncoderConfig] = {name: RESNETS[name] for name in ("resnet50", "resnet101")}
    return ModelConfig(
        num_classes=num_classes,
        encoder=choose(backbones, backbone, 8, 3),
        aspp=ASPPConfig(atrous_rates=(12, 24, 36), branches="dense", refine="dense", dropout=0.5),
        decoder=None,
        aux_head=AuxHeadConfig(channels=256, dropout=0.1) if aux_loss else None,
        align_corners=False,
    )


def tf_deeplab(
    model_variant: str = "xception_65",
    num_classes: int = 21,
    output_stride: int = 16,
    *,
    atrous_rates: tuple[int, ...] | None = None,
    decoder: bool = True,
    dense_prediction_cell: bool = False,
    separable: bool = True,
    depth_multiplier: float = 1.0,
    multi_grid: tuple[int, ...] | None = None,
    in_channels: int = 3,
) -> ModelConfig:
    """Google's research/deeplab, the authors' own code. Defaults are those of its VOC and Cityscapes models.

    Args:
        model_variant: the encoder: `xception_41|65|71`, `resnet_v1_50|101[_beta]` or `mobilenet_v2`.
        num_classes: logits a pixel.
        output_stride: of the encoder.
        atrous_rates: of the pyramid; by default 6, 12, 18 at output stride 16 and twice that at 8. The published
            MobileNetV2 models have none, `()`, and no decoder.
        decoder: DeepLabV3+ (`decoder_output_stride=4`), or DeepLabV3 without.
        dense_prediction_cell: the best cell found on Cityscapes (arXiv:1809.04184) in place of the ASPP.
        separable: 3x3 convolutions of ASPP and decoder (`aspp_with_separable_conv`, `decoder_use_separable_conv`).
        depth_multiplier: of MobileNetV2's channels.
        multi_grid: factors on the dilations of the last stage; by default 1, 2, 4 for the beta ResNets, else none.
        in_channels: of the images.
    """
    encoder = choose(TF_ENCODERS, model_variant, output_stride, in_channels)
    if isinstance(encoder, MobileNetV2Config):
        if multi_grid:
            raise InputError(f"multi_grid={multi_grid} is not possible in MobileNetV2")
        encoder = thin(encoder, depth_multiplier)
    elif multi_grid is not None:
        encoder = replace(encoder, multi_grid=multi_grid)
    factor = 16 // output_stride
    kind = "separable-norm-relu" if separable else "dense"
    if dense_prediction_cell:
        rates = ((1, 6), (18, 15), (6, 3), (1, 1), (6, 21))
        pyramid = DPCConfig((-1, 0, 1, 0, 0), tuple((factor * h, factor * w) for h, w in rates), dropout=0.1)
    else:
        rates = (6 * factor, 12 * factor, 18 * factor) if atrous_rates is None else atrous_rates
        pyramid = ASPPConfig(atrous_rates=rates, branches=kind, refine=None, pool_first=True, dropout=0.1)
    return ModelConfig(
        num_classes=num_classes,
        encoder=encoder,
        aspp=pyramid,
        decoder=DecoderConfig(low_level_channels=48, channels=256, fuse=kind, depth=2) if decoder else None,
        align_corners=True,
    )


def thin(config: MobileNetV2Config, multiplier: float) -> MobileNetV2Config:
    """MobileNetV2 with that share of every width, rounded to whole channels as research/deeplab does."""
    if not 0.1 <= multiplier <= 4:
        raise InputError(f"depth_multiplier={multiplier} must be 0.1 to 4")

    def scaled(channels: int) -> int:
        return max(int(channels * multiplier + 0.5), 1)

    stages = tuple((expansion, scaled(channels), *rest) for expansion, channels, *rest in config.stages)
    return replace(config, stem=scaled(config.stem), stages=stages)
