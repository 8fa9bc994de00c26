"""The values of small tensors of an ONNX graph, from which it computes the shapes of large ones; and their types."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from deeplab_jax.package.onnx_check.graph import BOOL, INT64, MOST_VALUES, UINT8, Node, Shape, argument, axis, flag
from deeplab_jax.package.onnx_check.shapes import constant_tensor, filling, shape_part, slices

NUMPY_TYPES = {1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16}
NUMPY_TYPES |= {11: np.float64}
COMPARISONS = "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor", "Not"


def output_type(node: Node, inputs: Sequence[Any]) -> int:
    """As onnx.TensorProto.DataType."""
    match node.op:
        case "Shape" | "Size" | "ArgMax" | "ArgMin":
            return INT64
        case "Cast":
            return node.attributes["to"]
        case "Constant":
            return constant_tensor(node).type
        case "ConstantOfShape":
            return filling(node).type
        case "QuantizeLinear":
            return inputs[2].type if len(inputs) > 2 and inputs[2] else node.attributes.get("output_dtype") or UINT8
        case "DequantizeLinear" | "CastLike" | "Where":
            return inputs[1].type
        case "QLinearConv":
            return inputs[7].type
        case op:
            return BOOL if op in COMPARISONS else inputs[0].type


def known_value(node: Node, inputs: Sequence[Any], shape: Shape) -> np.ndarray | None:
    """The first output, where it is small and follows from known inputs."""
    if node.op not in VALUES or math.prod(shape) > MOST_VALUES:
        return None
    if node.op not in ("Shape", "Size") and any(tensor is not None and tensor.value is None for tensor in inputs):
        return None
    with np.errstate(all="raise"):
        value = VALUES[node.op](node, inputs, shape)
    return None if value is None else np.asarray(value).reshape(shape)


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


VALUES: dict[str, Callable[[Node, Sequence[Any], Shape], Any]] = {
    **dict.fromkeys(
        ("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze"), lambda node, inputs, shape: inputs[0].value
    ),
    "Abs": of_values(np.abs),
    "Add": of_values(np.add),
    "Cast": cast,
    "Ceil": of_values(np.ceil),
    "Clip": clip,
    "Concat": concatenate,
    "Constant": lambda node, inputs, shape: constant_tensor(node).value,
    "ConstantOfShape": lambda node, inputs, shape: np.full(shape, filling(node).value),
    "Div": of_values(divide),
    "Equal": of_values(np.equal),
    "Expand": lambda node, inputs, shape: np.broadcast_to(inputs[0].value, shape),
    "Floor": of_values(np.floor),
    "Gather": gather,
    "Greater": of_values(np.greater),
    "Less": of_values(np.less),
    "Max": of_values(lambda *values: np.max(np.broadcast_arrays(*values), 0)),
    "Min": of_values(lambda *values: np.min(np.broadcast_arrays(*values), 0)),
    "Mul": of_values(np.multiply),
    "Neg": of_values(np.negative),
    "Range": of_values(span),
    "ReduceMax": reduction(np.max),
    "ReduceMin": reduction(np.min),
    "ReduceProd": reduction(np.prod),
    "ReduceSum": reduction(np.sum),
    "Shape": lambda node, inputs, shape: np.array(shape_part(node, inputs), np.int64),
    "Size": lambda node, inputs, shape: np.array(math.prod(inputs[0].shape), np.int64),
    "Slice": lambda node, inputs, shape: inputs[0].value[tuple(slices(node, inputs))],
    "Sqrt": of_values(np.sqrt),
    "Sub": of_values(np.subtract),
    "Tile": lambda node, inputs, shape: np.tile(inputs[0].value, argument(node, inputs, 1, "repeats") or ()),
    "Transpose": lambda node, inputs, shape: np.transpose(inputs[0].value, node.attributes.get("perm")),
    "Where": of_values(np.where),
}
