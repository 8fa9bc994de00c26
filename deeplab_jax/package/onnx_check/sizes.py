"""Knows the size of every tensor of an ONNX graph before it runs, and refuses graphs where it does not.

A file of a hundred bytes can ask for a terabyte: a constant of that shape, a huge padding, or forty concatenations that
double each time. So the nodes are gone through with one image's shapes, by the operators' own rules and with the
values of the small tensors that shapes are computed from. `RULES` is also the list of operators that may run.
"""

import math
from collections.abc import Iterable

from deeplab_jax.package.onnx_check import shapes, windows
from deeplab_jax.package.onnx_check.graph import FLOAT, MOST_SIDES, Node, Rule, Shape, Tensor
from deeplab_jax.package.onnx_check.values import known_value, output_type
from deeplab_jax.protobuf import Malformed

# Of all intermediate results at one time: so much, and for large network inputs so many times the input.
MOST_LIVE = 1 << 27
MOST_LIVE_PER_INPUT = 64
MOST_INPUT = 1 << 28
MOST_OPERATIONS = 10**13  # products of an image: some five times those of a large DeepLab on a street scene


def check_sizes(
    nodes: Iterable[Node], constants: dict[str, Tensor], input_name: str, input_shape: Shape, output: str
) -> None:
    """Raises Malformed for a node that cannot run or is not known, and for results or work beyond all reason."""
    nodes = list(nodes)
    if math.prod(input_shape) > MOST_INPUT:
        raise Malformed(f"its input {input_shape} takes too much memory")
    known = {**constants, input_name: Tensor(FLOAT, input_shape)}
    last_use = {name: place for place, node in enumerate(nodes) for name in node.inputs}
    last_use[output] = len(nodes)
    most = MOST_LIVE + MOST_LIVE_PER_INPUT * math.prod(input_shape)
    live, operations, lasting = 0, 0, set(constants)
    for place, node in enumerate(nodes):
        for name in node.inputs:
            if name and name not in known:
                raise Malformed(f"the node {node.name!r} reads {name!r}, which no node before it gives")
        for name in node.outputs:
            if name in known:
                raise Malformed(f"the node {node.name!r} gives {name!r}, which is there already")
        inputs = [known[name] if name else None for name in node.inputs]
        results, cost = results_of(node, inputs)
        folded = lasting.issuperset(filter(None, node.inputs))  # computed when the file is loaded, and kept
        for name, result in zip(node.outputs, results, strict=False):
            if name:
                known[name] = result
                live += math.prod(result.shape)
                if folded:
                    lasting.add(name)
        operations += cost
        if live > most or operations > MOST_OPERATIONS * input_shape[0]:
            shape = results[0].shape
            raise Malformed(f"up to the node {node.name!r} ({node.op} to {shape}) it takes too much memory or time")
        for name in {*node.inputs, *node.outputs} - lasting:
            if name in known and name != input_name and last_use.get(name, place) == place:
                live -= math.prod(known[name].shape)
    shape = known[output].shape if output in known else None
    if shape is None or len(shape) != 4 or shape[0] != input_shape[0]:
        raise Malformed(f"its output must be logits (batch, classes, height, width), not {shape}")


def results_of(node: Node, inputs: list[Tensor | None]) -> tuple[list[Tensor], int]:
    """The outputs of a node and its number of operations."""
    if node.op not in RULES:
        raise Malformed(f"the node {node.name!r} has the operator {node.op!r}, which is none of those that may run")
    try:
        result = RULES[node.op](node, inputs)
        value = known_value(node, inputs, result[0])
        kind = output_type(node, inputs)
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, ArithmeticError) as error:
        raise Malformed(f"the node {node.name!r} ({node.op}) does not fit its inputs: {error}") from None
    for shape in result:
        if len(shape) > MOST_SIDES or any(side < (value is None) for side in shape):
            raise Malformed(f"the node {node.name!r} ({node.op}) gives the shape {shape}")
    tensors = [Tensor(kind, shape, value if shape == result[0] else None) for shape in result]
    tensors += tensors[:1] * (len(node.outputs) - len(tensors))
    read = max((math.prod(tensor.shape) for tensor in inputs if tensor), default=0)
    return tensors, max(read, math.prod(result[0]) * windows.cost_each(node, inputs))


def rules(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


RULES: dict[str, Rule] = {
    **rules(shapes.same, "Cast CastLike Clip Dropout Identity QuantizeLinear DequantizeLinear"),
    **rules(shapes.same, "Abs Ceil Erf Exp Floor Log Neg Not Reciprocal Round Sign Sqrt"),
    **rules(shapes.same, "Elu Gelu HardSigmoid HardSwish LeakyRelu Mish Relu Selu Sigmoid Softplus Softsign Tanh"),
    **rules(shapes.same, "LogSoftmax Softmax LpNormalization LRN ThresholdedRelu"),
    **rules(shapes.broadcast, "Add Div Max Mean Min Mod Mul Pow PRelu Sub Sum Where"),
    **rules(shapes.broadcast, "And Equal Greater GreaterOrEqual Less LessOrEqual Or Xor"),
    **rules(shapes.reduce, "ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd"),
    **rules(shapes.reduce, "ReduceSum ReduceSumSquare ArgMax ArgMin"),
    **rules(windows.per_channel, "BatchNormalization InstanceNormalization"),
    **rules(windows.convolution, "Conv QLinearConv"),
    **rules(windows.pool, "AveragePool MaxPool"),
    **rules(windows.global_pool, "GlobalAveragePool GlobalMaxPool"),
    "LayerNormalization": windows.layer_norm,
    "MatMul": windows.matmul,
    "Gemm": windows.gemm,
    "Einsum": windows.einsum,
    "Concat": shapes.concat,
    "Constant": shapes.constant,
    "ConstantOfShape": shapes.constant_of_shape,
    "Expand": shapes.expand,
    "Flatten": shapes.flatten,
    "Gather": shapes.gather,
    "Pad": shapes.pad,
    "Range": shapes.range_shape,
    "Reshape": shapes.reshape,
    "Resize": shapes.resize,
    "Shape": shapes.shape_of,
    "Size": shapes.size_of,
    "Slice": shapes.slice_shape,
    "Split": shapes.split,
    "Squeeze": shapes.squeeze,
    "Tile": shapes.tile,
    "Transpose": shapes.transpose,
    "Unsqueeze": shapes.unsqueeze,
}
