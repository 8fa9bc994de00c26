"""What every encoder gives to the rest of a DeepLab."""

from typing import NamedTuple

from jaxtyping import Array, Float


class Features(NamedTuple):
    low_level: Float[Array, "b h w c"]  # stride 4, for the V3+ decoder
    aux_features: Float[Array, "b h2 w2 c2"]  # before the last stage, for the auxiliary classifier
    high_level: Float[Array, "b h3 w3 c3"]  # at the output stride, for the pyramid


class Channels(NamedTuple):
    """Of each of `Features`."""

    low_level: int
    aux_features: int
    high_level: int
