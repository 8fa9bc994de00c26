"""Knows the size of every tensor of an ONNX graph before it runs, and refuses graphs where it does not.

A file of a hundred bytes can ask for a terabyte: a constant of that shape, a huge padding, or forty concatenations that
double each time. So the nodes are gone through with one image's shapes, by the operators' own rules and with the
values of the small tensors that shapes are computed from.
"""

import math
from collections.abc import Iterable

import numpy as np

from deeplab_jax.package.onnx_check.graph import FLOAT, MOST_SIDES, MOST_VALUES, Node, Shape, Tensor
from deeplab_jax.package.onnx_check.operators import OPERATORS, Operator
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
    if node.op not in OPERATORS:
        raise Malformed(f"the node {node.name!r} has the operator {node.op!r}, which is none of those that may run")
    operator = OPERATORS[node.op]
    try:
        result = operator.shapes(node, inputs)
        value = known_value(operator, node, inputs, result[0])
        kind = operator.type(node, inputs)
        cost = operator.cost(node, inputs)
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, ArithmeticError) as error:
        raise Malformed(f"the node {node.name!r} ({node.op}) does not fit its inputs: {error}") from None
    for shape in result:
        if len(shape) > MOST_SIDES or any(side < (value is None) for side in shape):
            raise Malformed(f"the node {node.name!r} ({node.op}) gives the shape {shape}")
    tensors = [Tensor(kind, shape, value if shape == result[0] else None) for shape in result]
    tensors += tensors[:1] * (len(node.outputs) - len(tensors))
    read = max((math.prod(tensor.shape) for tensor in inputs if tensor), default=0)
    return tensors, max(read, math.prod(result[0]) * cost)


def known_value(operator: Operator, node: Node, inputs: list[Tensor | None], shape: Shape) -> np.ndarray | None:
    """The first output, where it is small and follows from known inputs."""
    if operator.value is None or math.prod(shape) > MOST_VALUES:
        return None
    if node.op not in ("Shape", "Size") and any(tensor is not None and tensor.value is None for tensor in inputs):
        return None
    with np.errstate(all="raise"):
        value = operator.value(node, inputs, shape)
    return None if value is None else np.asarray(value).reshape(shape)
