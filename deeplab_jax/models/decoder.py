"""The decoder of DeepLabV3+ (arXiv:1802.02611)."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from deeplab_jax.model_config import DecoderConfig
from deeplab_jax.models.layers import ConvNormReLU, resize_bilinear


class Decoder(nnx.Module):
    """Upsamples the pyramid to the low-level features and fuses the two (arXiv:1802.02611, figure 2)."""

    def __init__(self, low_level: int, pyramid: int, config: DecoderConfig, align_corners: bool, *, rngs: nnx.Rngs):
        reduced, epsilon = config.low_level_channels, config.epsilon
        self.low_level_proj = ConvNormReLU(low_level, reduced, epsilon=epsilon, rngs=rngs)
        self.fuse = nnx.List(
            ConvNormReLU(in_channels, config.channels, 3, kind=config.fuse, epsilon=epsilon, rngs=rngs)
            for in_channels in (pyramid + reduced, *(config.channels,) * (config.depth - 1))
        )
        self.align_corners = align_corners

    def __call__(
        self, low_level: Float[Array, "b h w c"], pyramid: Float[Array, "b h2 w2 c2"]
    ) -> Float[Array, "b h w c_out"]:
        pyramid = resize_bilinear(pyramid, low_level.shape[1:3], align_corners=self.align_corners)
        x = jnp.concatenate([pyramid, self.low_level_proj(low_level)], -1)
        for conv in self.fuse:
            x = conv(x)
        return x
