"""Losses in float32 over the pixels that have a label."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from deeplab_jax.config import IGNORE


def cross_entropy(logits: Float[Array, "b h w classes"], ids: Int[Array, "b h w"]) -> Float[Array, ""]:
    """Mean over the valid pixels of the whole batch; 0 where there is none."""
    valid = ids != IGNORE
    losses = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), jnp.where(valid, ids, 0))
    return jnp.where(valid, losses, 0).sum() / jnp.maximum(valid.sum(), 1)
