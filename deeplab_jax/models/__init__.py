"""The DeepLab family: `model = build_model(config, rngs=nnx.Rngs(0))`."""

from deeplab_jax.config import ASPPConfig, DecoderConfig, EncoderConfig, ModelConfig
from deeplab_jax.models import presets
from deeplab_jax.models.deeplab import DeepLab, build_model

__all__ = ["ASPPConfig", "DecoderConfig", "DeepLab", "EncoderConfig", "ModelConfig", "build_model", "presets"]
