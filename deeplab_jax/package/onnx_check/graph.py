"""Nodes and tensors of an ONNX graph, and what is asked of an operator's attributes and inputs."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

FLOAT, UINT8, INT64, BOOL = 1, 2, 7, 9  # of onnx.TensorProto.DataType
FLOATS = (FLOAT, 10, 11, 16)

MOST_SIDES = 8
MOST_VALUES = 4096  # of a tensor that may be part of a shape; larger ones are not read

Shape = tuple[int, ...]


class Tensor(NamedTuple):
    type: int
    shape: Shape
    value: np.ndarray | None = None  # where it is small and known


class Node(NamedTuple):
    name: str
    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]


Rule = Callable[[Node, Sequence[Any]], list[Shape]]  # to the shapes of the first outputs; raises what does not fit


def fits(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(what)


def positive(node: Node, name: str, count: int, *, at_least: int = 1) -> list[int]:
    """An attribute of so many numbers, by default 1 each."""
    given = node.attributes.get(name, 1)
    numbers = [given] * count if isinstance(given, int) else list(given) or [1] * count
    right = len(numbers) == count and all(isinstance(n, int) and at_least <= n < 1 << 31 for n in numbers)
    fits(right, f"{name} is {given}")
    return numbers


def flag(node: Node, name: str, default: int = 0) -> bool:
    value = node.attributes.get(name, default)
    fits(value in (0, 1), f"{name} is {value}")
    return value == 1


def axis(given: int, rank: int) -> int:
    fits(-rank <= given < rank, f"axis {given} of {rank}")
    return given % rank


def value_of(tensor: Tensor | None, what: str) -> np.ndarray:
    if tensor is None or tensor.value is None:
        raise ValueError(f"its {what} cannot be told before it runs")
    return tensor.value


def argument(node: Node, inputs: Sequence[Any], place: int, name: str) -> list[int] | None:
    """Whole numbers that are an attribute in older opsets and an input in newer ones; None where not given."""
    if name in node.attributes:
        given = node.attributes[name]
        return [given] if isinstance(given, int) else list(given)
    tensor = inputs[place] if place < len(inputs) else None
    if tensor is None:
        return None
    return [int(number) for number in value_of(tensor, name).ravel()]


def required(numbers: list[int] | None) -> list[int]:
    fits(numbers is not None, "a shape or axes are missing")
    return numbers or []
