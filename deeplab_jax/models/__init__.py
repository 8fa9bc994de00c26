"""The DeepLab family: `model = build_model(config, rngs=nnx.Rngs(0))`."""

from deeplab_jax.model_config import (
    ASPPConfig,
    AuxHeadConfig,
    DecoderConfig,
    DPCConfig,
    MobileNetV2Config,
    ModelConfig,
    ResNetConfig,
    XceptionConfig,
)
from deeplab_jax.models import presets
from deeplab_jax.models.deeplab import DeepLab, build_model

__all__ = [
    "ASPPConfig",
    "AuxHeadConfig",
    "DPCConfig",
    "DecoderConfig",
    "DeepLab",
    "MobileNetV2Config",
    "ModelConfig",
    "ResNetConfig",
    "XceptionConfig",
    "build_model",
    "presets",
]
