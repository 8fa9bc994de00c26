"""All that is known of every operator of ONNX that may run, in one table."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from deeplab_jax.package.onnx_check import shapes, values, windows
from deeplab_jax.package.onnx_check.graph import BOOL, INT64, UINT8, Node, Rule, Shape
from deeplab_jax.package.onnx_check.values import of_values

Inputs = Sequence[Any]  # Tensor, or None for one left out


def first_type(node: Node, inputs: Inputs) -> int:
    return inputs[0].type


def second_type(node: Node, inputs: Inputs) -> int:
    return inputs[1].type


def int64(node: Node, inputs: Inputs) -> int:
    return INT64


def boolean(node: Node, inputs: Inputs) -> int:
    return BOOL


def cast_type(node: Node, inputs: Inputs) -> int:
    return node.attributes["to"]


def quantized_type(node: Node, inputs: Inputs) -> int:
    zero = inputs[2] if len(inputs) > 2 else None
    return zero.type if zero else node.attributes.get("output_dtype") or UINT8


def memory_cost(node: Node, inputs: Inputs) -> int:
    return 64  # memory is slow


class Operator(NamedTuple):
    shapes: Rule
    value: Callable[[Node, Inputs, Shape], Any] | None = None  # of the first output, from inputs that are known
    type: Callable[[Node, Inputs], int] = first_type  # of the outputs, as onnx.TensorProto.DataType
    cost: Callable[[Node, Inputs], int] = memory_cost  # products, or the like, that an output value takes


def alike(operator: Operator, names: str) -> dict[str, Operator]:
    return dict.fromkeys(names.split(), operator)


def first(node: Node, inputs: Inputs, shape: Shape) -> Any:
    return inputs[0].value


def constant_value(node: Node, inputs: Inputs, shape: Shape) -> Any:
    return shapes.constant_tensor(node).value


def broadcast_value(node: Node, inputs: Inputs, shape: Shape) -> Any:
    return np.broadcast_to(inputs[0].value, shape)


POINTWISE, PAIRWISE, REDUCED = Operator(shapes.same), Operator(shapes.broadcast), Operator(shapes.reduce)
WHETHER = Operator(shapes.broadcast, type=boolean)

OPERATORS: dict[str, Operator] = {
    # Value by value
    **alike(POINTWISE, "Dropout Erf Exp Log Reciprocal Round Sign"),
    **alike(POINTWISE, "Elu Gelu HardSigmoid HardSwish LeakyRelu Mish Relu Selu Sigmoid Softplus Softsign Tanh"),
    **alike(POINTWISE, "LogSoftmax Softmax LpNormalization ThresholdedRelu"),
    "Abs": Operator(shapes.same, of_values(np.abs)),
    "Cast": Operator(shapes.same, values.cast, cast_type),
    "CastLike": Operator(shapes.same, type=second_type),
    "Ceil": Operator(shapes.same, of_values(np.ceil)),
    "Clip": Operator(shapes.same, values.clip),
    "DequantizeLinear": Operator(shapes.same, type=second_type),
    "Floor": Operator(shapes.same, of_values(np.floor)),
    "Identity": Operator(shapes.same, first),
    "LRN": Operator(shapes.same, cost=windows.lrn_cost),
    "Neg": Operator(shapes.same, of_values(np.negative)),
    "Not": Operator(shapes.same, type=boolean),
    "QuantizeLinear": Operator(shapes.same, type=quantized_type),
    "Sqrt": Operator(shapes.same, of_values(np.sqrt)),
    # Of two or more
    **alike(PAIRWISE, "Mean Mod Pow PRelu Sum"),
    **alike(WHETHER, "And GreaterOrEqual LessOrEqual Or Xor"),
    "Add": Operator(shapes.broadcast, of_values(np.add)),
    "Div": Operator(shapes.broadcast, of_values(values.divide)),
    "Equal": Operator(shapes.broadcast, of_values(np.equal), boolean),
    "Greater": Operator(shapes.broadcast, of_values(np.greater), boolean),
    "Less": Operator(shapes.broadcast, of_values(np.less), boolean),
    "Max": Operator(shapes.broadcast, of_values(values.largest)),
    "Min": Operator(shapes.broadcast, of_values(values.smallest)),
    "Mul": Operator(shapes.broadcast, of_values(np.multiply)),
    "Sub": Operator(shapes.broadcast, of_values(np.subtract)),
    "Where": Operator(shapes.broadcast, of_values(np.where), second_type),
    # Over axes
    **alike(REDUCED, "ReduceL1 ReduceL2 ReduceLogSumExp ReduceMean ReduceSumSquare"),
    **alike(Operator(shapes.reduce, type=int64), "ArgMax ArgMin"),
    "ReduceMax": Operator(shapes.reduce, values.reduction(np.max)),
    "ReduceMin": Operator(shapes.reduce, values.reduction(np.min)),
    "ReduceProd": Operator(shapes.reduce, values.reduction(np.prod)),
    "ReduceSum": Operator(shapes.reduce, values.reduction(np.sum)),
    # Over windows, channels and products
    **alike(Operator(windows.per_channel), "BatchNormalization InstanceNormalization"),
    **alike(Operator(windows.pool, cost=windows.pool_cost), "AveragePool MaxPool"),
    **alike(Operator(windows.global_pool), "GlobalAveragePool GlobalMaxPool"),
    "Conv": Operator(windows.convolution, cost=windows.convolution_cost),
    "Einsum": Operator(windows.einsum, cost=windows.einsum_cost),
    "Gemm": Operator(windows.gemm, cost=windows.matmul_cost),
    "LayerNormalization": Operator(windows.layer_norm),
    "MatMul": Operator(windows.matmul, cost=windows.matmul_cost),
    "QLinearConv": Operator(windows.convolution, type=lambda _, inputs: inputs[7].type, cost=windows.convolution_cost),
    # That move values about, make and measure them
    "Concat": Operator(shapes.concat, values.concatenate),
    "Constant": Operator(shapes.constant, constant_value, lambda node, _: shapes.constant_tensor(node).type),
    "ConstantOfShape": Operator(shapes.constant_of_shape, values.fill, lambda node, _: shapes.filling(node).type),
    "Expand": Operator(shapes.expand, broadcast_value),
    "Flatten": Operator(shapes.flatten, first),
    "Gather": Operator(shapes.gather, values.gather),
    "Pad": Operator(shapes.pad),
    "Range": Operator(shapes.range_shape, of_values(values.span)),
    "Reshape": Operator(shapes.reshape, first),
    "Resize": Operator(shapes.resize),
    "Shape": Operator(shapes.shape_of, values.shape_value, int64),
    "Size": Operator(shapes.size_of, values.size_value, int64),
    "Slice": Operator(shapes.slice_shape, values.part),
    "Split": Operator(shapes.split),
    "Squeeze": Operator(shapes.squeeze, first),
    "Tile": Operator(shapes.tile, values.tile),
    "Transpose": Operator(shapes.transpose, values.transpose),
    "Unsqueeze": Operator(shapes.unsqueeze, first),
}
