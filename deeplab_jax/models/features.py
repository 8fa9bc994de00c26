"""What every encoder gives to the rest of a DeepLab, and the one way in which it is taken."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from flax import nnx
from jaxtyping import Array, Float

from deeplab_jax.models.layers import save_activation


class Features(NamedTuple):
    low_level: Float[Array, "b h w c"]  # stride 4, for the V3+ decoder
    aux_features: Float[Array, "b h2 w2 c2"]  # before the last stage, for the auxiliary classifier
    high_level: Float[Array, "b h3 w3 c3"]  # at the output stride, for the pyramid


class Channels(NamedTuple):
    """Of each of `Features`."""

    low_level: int
    aux_features: int
    high_level: int


class Taps(NamedTuple):
    """Indices of the blocks that give the first two of `Features`."""

    low_level: int
    within: bool  # whether the low-level features are taken within that block, not after it
    aux_features: int


class Block(nnx.Module):
    """Part of an encoder, in two steps; between them low-level features may be taken."""

    # The input of the shortcut, and what the block has computed halfway; then the output of the two.
    begin: Callable[[Float[Array, "b h w c_in"]], tuple[Float[Array, "b h w c_in"], Float[Array, "b h2 w2 c"]]]
    finish: Callable[[Float[Array, "b h w c_in"], Float[Array, "b h2 w2 c"]], Float[Array, "b h3 w3 c_out"]]


def run_blocks(x: Float[Array, "b h w c"], blocks: Iterable[Block], taps: Taps) -> Features:
    """From the stem's output on."""
    x = save_activation(x)
    for index, block in enumerate(blocks):
        shortcut, inner = block.begin(x)
        x = save_activation(block.finish(shortcut, inner))
        if index == taps.low_level:
            low_level = inner if taps.within else x
        if index == taps.aux_features:
            aux_features = x
    return Features(low_level, aux_features, x)
