"""Atrous spatial pyramid pooling (arXiv:1706.05587, figure 5) and the dense prediction cell (arXiv:1809.04184)."""

from functools import partial

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from deeplab_jax.model_config import ASPPConfig, DPCConfig
from deeplab_jax.models.layers import ConvNormReLU


class ASPP(nnx.Module):
    """One 1x1, the atrous 3x3s and image pooling side by side; projected, dropped out, refined by a 3x3."""

    def __init__(self, in_channels: int, config: ASPPConfig, *, rngs: nnx.Rngs):
        channels, epsilon = config.channels, config.epsilon
        self.conv1x1 = ConvNormReLU(in_channels, channels, epsilon=epsilon, rngs=rngs)
        self.atrous = nnx.List(
            ConvNormReLU(in_channels, channels, 3, dilation=rate, kind=config.branches, epsilon=epsilon, rngs=rngs)
            for rate in config.atrous_rates
        )
        self.pool = ConvNormReLU(in_channels, channels, epsilon=epsilon, rngs=rngs)
        self.project = ConvNormReLU((len(config.atrous_rates) + 2) * channels, channels, epsilon=epsilon, rngs=rngs)
        self.dropout = nnx.Dropout(config.dropout)
        if config.refine:
            self.refine = ConvNormReLU(channels, channels, 3, kind=config.refine, epsilon=epsilon, rngs=rngs)
        else:
            self.refine = None
        self.pool_first = config.pool_first

    def __call__(self, x: Float[Array, "b h w c_in"], rngs: nnx.Rngs | None = None) -> Float[Array, "b h w c_out"]:
        pooled = self.pool(x.mean((1, 2), keepdims=True))  # b 1 1 c
        branches = [self.conv1x1(x), *(conv(x) for conv in self.atrous)]
        branches.insert(0 if self.pool_first else len(branches), jnp.broadcast_to(pooled, branches[0].shape))
        x = self.project(jnp.concatenate(branches, -1))
        if rngs is not None:
            x = self.dropout(x, rngs=rngs)
        return self.refine(x) if self.refine else x


class DensePredictionCell(nnx.Module):
    """Atrous 3x3s that read the encoder or one another, concatenated, dropped out and projected."""

    def __init__(self, in_channels: int, config: DPCConfig, *, rngs: nnx.Rngs):
        channels, epsilon = config.channels, config.epsilon
        separable = partial(ConvNormReLU, kind="separable-norm-relu", epsilon=epsilon, rngs=rngs)
        self.branches = nnx.List(
            separable(in_channels if source < 0 else channels, channels, 3, dilation=rate)
            for source, rate in zip(config.inputs, config.atrous_rates, strict=True)
        )
        self.dropout = nnx.Dropout(config.dropout)
        self.project = ConvNormReLU(len(config.inputs) * channels, channels, epsilon=epsilon, rngs=rngs)
        self.inputs = config.inputs

    def __call__(self, x: Float[Array, "b h w c_in"], rngs: nnx.Rngs | None = None) -> Float[Array, "b h w c_out"]:
        outputs = []
        for branch, source in zip(self.branches, self.inputs, strict=True):
            outputs.append(branch(x if source < 0 else outputs[source]))
        x = jnp.concatenate(outputs, -1)
        if rngs is not None:
            x = self.dropout(x, rngs=rngs)
        return self.project(x)
