"""The auxiliary classifier, whose loss helps the encoder while training."""

from flax import nnx
from jaxtyping import Array, Float

from deeplab_jax.model_config import AuxHeadConfig
from deeplab_jax.models.layers import Conv, ConvNormReLU


class AuxHead(nnx.Module):
    """A small classifier on the encoder's features before the last stage (arXiv:1612.01105, section 3.3)."""

    def __init__(self, in_channels: int, classes: int, config: AuxHeadConfig, *, rngs: nnx.Rngs):
        self.hidden = ConvNormReLU(in_channels, config.channels, 3, epsilon=config.epsilon, rngs=rngs)
        self.dropout = nnx.Dropout(config.dropout)
        self.classifier = Conv(config.channels, classes, use_bias=True, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c_in"], rngs: nnx.Rngs | None) -> Float[Array, "b h w classes"]:
        x = self.hidden(x)
        if rngs is not None:
            x = self.dropout(x, rngs=rngs)
        return self.classifier(x)
