"""Models that other libraries ship, spelled out field by field."""

from deeplab_jax.config import ASPPConfig, DecoderConfig, EncoderConfig, ModelConfig
from deeplab_jax.errors import InputError

RESNETS = {  # blocks a stage, bottleneck
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
}


def encoder_config(encoder: str, output_stride: int, in_channels: int) -> EncoderConfig:
    """The encoder that segmentation_models_pytorch builds under this name."""
    if encoder not in RESNETS:
        raise InputError(f"encoder {encoder!r} is not known; choose one of {', '.join(RESNETS)}")
    if output_stride not in (8, 16):
        raise InputError(f"encoder_output_stride={output_stride} is not possible; choose 8 or 16")
    blocks, bottleneck = RESNETS[encoder]
    return EncoderConfig(blocks, bottleneck, output_stride, "whole-stage", in_channels)


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
        encoder=encoder_config(encoder, encoder_output_stride, in_channels),
        aspp=ASPPConfig(
            rates=decoder_atrous_rates,
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
    in_channels: int = 3,
    decoder_channels: int = 256,
    decoder_atrous_rates: tuple[int, ...] = (12, 24, 36),
    decoder_aspp_separable: bool = True,
    decoder_aspp_dropout: float = 0.5,
) -> ModelConfig:
    """segmentation_models_pytorch 0.6 `DeepLabV3Plus`; arguments and defaults are its own."""
    return ModelConfig(
        num_classes=classes,
        encoder=encoder_config(encoder, encoder_output_stride, in_channels),
        aspp=ASPPConfig(
            rates=decoder_atrous_rates,
            channels=decoder_channels,
            branches="separable" if decoder_aspp_separable else "dense",
            refine="separable",
            dropout=decoder_aspp_dropout,
        ),
        decoder=DecoderConfig(low_level_channels=48, channels=decoder_channels, fuse="separable"),
        align_corners=True,
    )
