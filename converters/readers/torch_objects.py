"""What a pickle of PyTorch's becomes: passive objects, which carry nothing that runs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deeplab_jax.errors import InputError


class Placeholder:
    """Stands in a result for what is neither a tensor nor plain data. It carries nothing."""

    __slots__ = ()


def plain(name: str) -> str:
    """A name out of a file as a short line of ASCII."""
    return ascii(name[:80])[1:-1]


def damage(reason: str) -> str:
    return f"is damaged: {reason}; download or save it again"


def require(fits: bool, reason: str) -> None:
    if not fits:
        raise InputError(damage(reason))


@dataclass(frozen=True, slots=True, eq=False)
class Global:
    """What a name in a pickle stands for. It takes the arguments of a call as the tuple they are, as a copy could be
    made of a large one again and again."""

    call: Callable[[tuple], Any]
    dtype: np.dtype | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    key: str
    dtype: np.dtype
    numel: int


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    storage: Any
    offset: Any
    size: Any
    stride: Any


@dataclass(frozen=True, slots=True, eq=False)
class Dict:
    """A dictionary as pairs, as keys are hashed only once it is counted how many could collide."""

    items: Any = field(default_factory=list)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))


@dataclass(slots=True, eq=False)
class Object:
    """What is given its attributes by BUILD. Its value is that of one of them, or of all."""

    attributes: Any = None
    only: str | None = None


@dataclass(slots=True, eq=False)
class Numpy:
    """A type of numpy's, which is given its byte order by BUILD; or an array, which is given everything by it; or one
    number, in the form in which an array is."""

    code: Any = None
    attributes: Any = None
