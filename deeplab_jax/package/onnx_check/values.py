"""The values of small tensors of an ONNX graph, from which it computes the shapes of large ones."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from deeplab_jax.package.onnx_check.graph import Node, Shape, argument, axis, flag
from deeplab_jax.package.onnx_check.shapes import filling, shape_part, slices

NUMPY_TYPES = {1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16}
NUMPY_TYPES |= {11: np.float64}


def of_values(function: Callable[..., Any]) -> Callable[[Node, Sequence[Any], Shape], Any]:
    """That takes nothing but the values of the inputs."""
    return lambda node, inputs, shape: function(*(tensor.value for tensor in inputs))


def divide(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Integers towards zero, as in C."""
    if np.issubdtype(left.dtype, np.floating):
        return left / right
    return np.sign(left) * (np.abs(left) // right)


def reduction(function: Callable[..., Any]) -> Callable[[Node, Sequence[Any], Shape], Any]:
    def reduce(node: Node, inputs: Sequence[Any], shape: Shape) -> Any:
        axes = argument(node, inputs, 1, "axes") or (() if flag(node, "noop_with_empty_axes") else None)
        return function(inputs[0].value, axis=None if axes is None else tuple(axes))

    return reduce


def cast(node: Node, inputs: Sequence[Any], shape: Shape) -> Any:
    return inputs[0].value.astype(NUMPY_TYPES[node.attributes["to"]])


def clip(node: Node, inputs: Sequence[Any], shape: Shape) -> Any:
    """Its bounds are attributes in older opsets and inputs in newer ones; either may be left out."""
    value = inputs[0].value
    for place, name, bounded in ((1, "min", np.maximum), (2, "max", np.minimum)):
        given = inputs[place] if place < len(inputs) else None
        bound = node.attributes.get(name) if given is None else given.value
        value = value if bound is None else bounded(value, bound)
    return value


def gather(node: Node, inputs: Sequence[Any], shape: Shape) -> Any:
    return np.take(inputs[0].value, inputs[1].value.astype(np.int64), node.attributes.get("axis", 0))


def concatenate(node: Node, inputs: Sequence[Any], shape: Shape) -> Any:
    return np.concatenate([tensor.value for tensor in inputs], axis(node.attributes["axis"], len(shape)))


def span(start: np.ndarray, limit: np.ndarray, delta: np.ndarray) -> np.ndarray:
    count = math.ceil((limit - start) / delta)
    return (start + delta * np.arange(max(count, 0))).astype(start.dtype)


def fill(node: Node, inputs: Sequence[Any], shape: Shape) -> Any:
    return np.full(shape, filling(node).value)


def shape_value(node: Node, inputs: Sequence[Any], shape: Shape) -> Any:
    return np.array(shape_part(node, inputs), np.int64)


def size_value(node: Node, inputs: Sequence[Any], shape: Shape) -> Any:
    return np.array(math.prod(inputs[0].shape), np.int64)


def largest(*values: np.ndarray) -> np.ndarray:
    return np.max(np.broadcast_arrays(*values), 0)


def smallest(*values: np.ndarray) -> np.ndarray:
    return np.min(np.broadcast_arrays(*values), 0)


def part(node: Node, inputs: Sequence[Any], shape: Shape) -> Any:
    return inputs[0].value[tuple(slices(node, inputs))]


def tile(node: Node, inputs: Sequence[Any], shape: Shape) -> Any:
    return np.tile(inputs[0].value, argument(node, inputs, 1, "repeats") or ())


def transpose(node: Node, inputs: Sequence[Any], shape: Shape) -> Any:
    return np.transpose(inputs[0].value, node.attributes.get("perm"))
