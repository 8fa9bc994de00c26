"""The options that say how large the network input is."""

from typing import Annotated, Literal

from tyro.conf import arg
from tyro.constructors import PrimitiveConstructorSpec

from deeplab_jax.errors import InputError

# Two numbers and no more: of a union tyro gives the option every word that follows, the names of images too.
TWO_SIDES = PrimitiveConstructorSpec(
    nargs=2,
    metavar="HEIGHT WIDTH",
    instance_from_str=lambda words: (int(words[0]), int(words[1])),
    is_instance=lambda value: value is None or isinstance(value, tuple),
    str_from_instance=lambda value: [str(side) for side in value or ()],
)
SizeOption = Annotated[tuple[int, int] | None, TWO_SIDES, arg(help_behavior_hint="(default: the package's)")]


def input_size(size: tuple[int, int] | None, own_size: bool) -> tuple[int, int] | Literal["image"] | None:
    """What AutoModel calls it."""
    if size and own_size:
        raise InputError("--size and --own-size exclude each other; give one of them")
    return "image" if own_size else size
