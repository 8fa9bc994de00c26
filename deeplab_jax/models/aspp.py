"""Atrous spatial pyramid pooling (arXiv:1706.05587, figure 5)."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from deeplab_jax.config import ASPPConfig
from deeplab_jax.models.layers import ConvNormReLU


class ASPP(nnx.Module):
    """One 1x1, the atrous 3x3s and image pooling side by side; projected, dropped out, refined by a 3x3."""

    def __init__(self, cin: int, config: ASPPConfig, *, rngs: nnx.Rngs):
        channels, epsilon = config.channels, config.epsilon
        self.point = ConvNormReLU(cin, channels, epsilon=epsilon, rngs=rngs)
        self.atrous = nnx.List(
            ConvNormReLU(cin, channels, 3, dilation=rate, kind=config.branches, epsilon=epsilon, rngs=rngs)
            for rate in config.rates
        )
        self.pool = ConvNormReLU(cin, channels, epsilon=epsilon, rngs=rngs)
        self.project = ConvNormReLU((len(config.rates) + 2) * channels, channels, epsilon=epsilon, rngs=rngs)
        self.dropout = nnx.Dropout(config.dropout)
        self.refine = ConvNormReLU(channels, channels, 3, kind=config.refine, epsilon=epsilon, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w cin"], rngs: nnx.Rngs | None = None) -> Float[Array, "b h w cout"]:
        pooled = self.pool(x.mean((1, 2), keepdims=True))  # b 1 1 c
        branches = [self.point(x), *(conv(x) for conv in self.atrous)]
        branches.append(jnp.broadcast_to(pooled, branches[0].shape))
        x = self.project(jnp.concatenate(branches, -1))
        if rngs is not None:
            x = self.dropout(x, rngs=rngs)
        return self.refine(x)
