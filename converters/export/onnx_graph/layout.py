"""From what JAX traces, NHWC, to a graph that runs NCHW throughout and has no Transpose in it."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from jaxtyping import Num

from converters.export.onnx_graph.graph import GraphError, add_constant, constant, is_constant, replace, sizes, source

TO_FIRST, TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
CHANNELS_FIRST = {"Conv", "BatchNormalization", "MaxPool", "GlobalAveragePool"}  # operators that know no other layout
ELEMENTWISE = {"Add", "Sub", "Mul", "Div", "Max", "Min", "Relu", "Identity"}


def channels_first(graph: ir.Graph) -> None:
    """Every node that ran on NHWC tensors runs on NCHW ones; the Transposes between the two go.

    Raises GraphError for a node of which it is not known what becomes of it.
    """
    last = channels_last_values(graph)
    for node in graph:
        if node.op_type != "Transpose" and any(value in last for value in node.inputs):
            move_channels(graph, node)
    for value in last:
        value.shape = ir.Shape([sizes(value)[axis] for axis in TO_FIRST])
    for node in tuple(graph):
        if node.op_type == "Transpose":
            replace(graph, node, source(node))


def channels_last_values(graph: ir.Graph) -> set[ir.Value]:
    """Which tensors are NHWC: the image, and what follows from it."""
    last = {*graph.inputs}
    for node in graph:
        data = [value for value in node.inputs if value is not None and not is_constant(value)]
        is_last = {value in last for value in data}
        if len(is_last) != 1:
            raise GraphError(node, "reads NHWC and NCHW tensors")
        runs_last = is_last.pop()
        if node.op_type == "Transpose":
            wanted = TO_FIRST if runs_last else TO_LAST
            if tuple(node.attributes["perm"].as_ints()) != wanted:
                raise GraphError(node, f"should permute by {wanted}")
            runs_last = not runs_last
        elif node.op_type in CHANNELS_FIRST and runs_last:
            raise GraphError(node, "reads an NHWC tensor")
        if runs_last:
            last.update(node.outputs)
    return last


def move_channels(graph: ir.Graph, node: ir.Node) -> None:
    """Permutes what a node says of the axes of its NHWC input."""
    if node.op_type == "Concat":
        node.attributes["axis"] = ir.AttrInt64("axis", TO_FIRST.index(node.attributes["axis"].as_int() % 4))
    elif node.op_type == "Resize":
        permute_input(graph, node, 2, lambda scales: scales[list(TO_FIRST)])
    elif node.op_type == "Pad":
        permute_input(graph, node, 1, lambda pads: pads.reshape(2, 4)[:, list(TO_FIRST)].reshape(-1))
    elif node.op_type == "Slice":
        permute_input(graph, node, 3, lambda axes: np.array([TO_FIRST.index(axis % 4) for axis in axes]))
    elif node.op_type in ELEMENTWISE:
        for index in range(len(node.inputs)):
            permute_input(graph, node, index, channels_of_four_axes)
    else:
        raise GraphError(node, "is not known with channels first")


def channels_of_four_axes(array: Num[np.ndarray, "..."]) -> Num[np.ndarray, "..."]:
    """(c,) or (1, 1, 1, c) to (1, c, 1, 1); numbers stay."""
    return array if array.size == 1 else array.reshape((1,) * (4 - array.ndim) + array.shape).transpose(TO_FIRST)


def permute_input(
    graph: ir.Graph,
    node: ir.Node,
    index: int,
    change: Callable[[Num[np.ndarray, "..."]], Num[np.ndarray, "..."]],
) -> None:
    value = node.inputs[index]
    if value is not None and is_constant(value):
        node.replace_input_with(index, add_constant(graph, value.name, change(constant(value))))
