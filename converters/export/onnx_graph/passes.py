"""Passes over a traced graph, each of which makes it more like one that an expert writes by hand."""

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
from jaxtyping import Float32, Float64
from onnx.reference import ReferenceEvaluator

from converters.export.onnx_graph.graph import (
    GraphError,
    add_constant,
    constant,
    insert,
    is_constant,
    nodes,
    replace,
    sizes,
    sole_consumer,
    source,
)
from converters.export.onnx_graph.layout import TO_FIRST, TO_LAST
from deeplab_jax.models.layers import RESIZE_COLUMNS, RESIZE_ROWS, interpolation_matrix


def fold_constants(graph: ir.Graph) -> None:
    """Nodes that depend on no image become their result."""
    for node in tuple(graph):
        if all(value is None or is_constant(value) for value in node.inputs):
            known = {str(value.name): constant(value) for value in node.inputs if value}
            single = onnx.helper.make_model(
                onnx.helper.make_graph(
                    [ir.to_proto(node)],
                    "constant",
                    [onnx.helper.make_empty_tensor_value_info(name) for name in known],
                    [onnx.helper.make_empty_tensor_value_info(str(node.outputs[0].name))],
                ),
                opset_imports=[onnx.helper.make_opsetid("", graph.opset_imports[""])],
            )
            (result,) = ReferenceEvaluator(single).run(None, known)
            replace(graph, node, add_constant(graph, node.outputs[0].name, np.asarray(result)))


def drop_identities(graph: ir.Graph) -> None:
    for node in nodes(graph, "Identity"):
        replace(graph, node, source(node))


def pool_globally(graph: ir.Graph) -> None:
    """The mean over rows and columns, which is traced as a sum and a quotient, becomes GlobalAveragePool."""
    for node in nodes(graph, "ReduceSum"):
        axes = tuple(sorted(constant(node.inputs[1]) % 4))
        _, height, width, _ = sizes(source(node))
        steps, value = [node], node.outputs[0]
        while step := sole_consumer(value, "Reshape") or sole_consumer(value, "Expand"):
            steps, value = [*steps, step], step.outputs[0]
        quotient = sole_consumer(value, "Div")
        if axes != (1, 2) or quotient is None or constant(quotient.inputs[1]) != height * width:
            raise GraphError(node, "is no mean over rows and columns")
        pooled = insert(
            graph, node, "GlobalAveragePool", [insert(graph, node, "Transpose", [source(node)], perm=TO_FIRST)]
        )
        replace(graph, quotient, insert(graph, node, "Transpose", [pooled], perm=TO_LAST))
        for step in reversed(steps):
            graph.remove(step, safe=True)


def resize(graph: ir.Graph) -> None:
    """Interpolation, which is traced as products with constant matrices, becomes Resize."""
    for node in nodes(graph, "Einsum"):
        if node.attributes["equation"].as_string() != RESIZE_ROWS:
            raise GraphError(node, "is no interpolation")
        columns = sole_consumer(node.outputs[0], "Einsum")
        if columns is None or columns.attributes["equation"].as_string() != RESIZE_COLUMNS:
            raise GraphError(node, "is no half of an interpolation")
        matrices = constant(node.inputs[0]), constant(columns.inputs[0])
        mode = next((mode for mode in COORDINATES if all(interpolates(matrix, mode) for matrix in matrices)), None)
        if mode is None:
            raise GraphError(node, "interpolates in no known way")
        scales = add_constant(graph, "scales", resize_scales(sizes(node.inputs[1]), sizes(columns.outputs[0])))
        inputs = [node.inputs[1], None, scales]
        value = insert(graph, node, "Resize", inputs, mode="linear", coordinate_transformation_mode=mode)
        replace(graph, columns, value)
        graph.remove(node, safe=True)


COORDINATES = {"align_corners": True, "half_pixel": False}


def interpolates(matrix: Float32[np.ndarray, "after before"], mode: str) -> bool:
    return np.array_equal(matrix, interpolation_matrix(matrix.shape[1], matrix.shape[0], COORDINATES[mode]))


def resize_scales(before: Sequence[int], after: Sequence[int]) -> Float32[np.ndarray, "axes"]:
    """Ratios of sizes, none below the ratio: engines take `floor(size * scale)`, in whatever precision."""
    scales = (np.array(after) / before).astype(np.float32)
    return np.where(
        np.array(before) * scales.astype(np.float64) < after, np.nextafter(scales, np.float32(np.inf)), scales
    )


def broadcast_pooled(graph: ir.Graph) -> None:
    """Expand of one pixel to a feature map becomes a Resize, whose size may be made to follow that of another."""
    for node in nodes(graph, "Expand"):
        before, after = sizes(node.inputs[0]), sizes(node.outputs[0])
        if len(after) != 4 or before != [after[0], 1, 1, after[3]]:
            raise GraphError(node, "spreads more than one pixel over a feature map")
        scales = add_constant(graph, "scales", resize_scales(before, after))
        attributes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        replace(graph, node, insert(graph, node, "Resize", [node.inputs[0], None, scales], **attributes))


def pad_in_pool(graph: ir.Graph) -> None:
    """Padding with what never wins becomes the max-pool's own."""
    for node in nodes(graph, "MaxPool"):
        pad = source(node).producer()
        if pad is None or pad.op_type != "Pad":
            continue
        if not np.isneginf(constant(pad.inputs[2])):
            raise GraphError(pad, "pads with what a max-pool may choose")
        node.attributes.pop("auto_pad", None)
        node.attributes["pads"] = ir.AttrInt64s("pads", constant(pad.inputs[1])[[2, 3, 6, 7]].tolist())
        node.replace_input_with(0, source(pad))
        graph.remove(pad, safe=True)


def clip(graph: ir.Graph) -> None:
    """ReLU6, which is traced as Max and Min, becomes Clip."""
    for node in nodes(graph, "Max"):
        upper = sole_consumer(node.outputs[0], "Min")
        if upper is None:
            raise GraphError(node, "is no half of a ReLU6")
        bounds = [
            add_constant(graph, name, np.float32(constant(half.inputs[1])).reshape(()))
            for name, half in (("clip_min", node), ("clip_max", upper))
        ]
        replace(graph, upper, insert(graph, node, "Clip", [node.inputs[0], *bounds]))
        graph.remove(node, safe=True)


def fold_norms(graph: ir.Graph) -> None:
    """A BatchNormalization after a convolution becomes part of its weights; without one (pre-activation) it stays."""
    for node in nodes(graph, "BatchNormalization"):
        conv = source(node).producer()
        if conv is None or conv.op_type != "Conv" or sole_consumer(conv.outputs[0], node.op_type) is None:
            continue
        scale, shift, mean, variance = (constant(value).astype(np.float64) for value in node.inputs[1:])
        with np.errstate(invalid="ignore"):  # NaN for a negative variance, as in JAX
            factor = scale / np.sqrt(variance + node.attributes["epsilon"].as_float())
        set_weights(graph, conv, factor, shift - mean * factor)
        conv.metadata_props["norm"] = node.name or ""
        replace(graph, node, conv.outputs[0])


def fold_biases(graph: ir.Graph) -> None:
    """A number added to every channel of a convolution becomes its bias."""
    for node in nodes(graph, "Add"):
        conv = source(node).producer()
        if is_constant(node.inputs[1]) and conv is not None and conv.op_type == "Conv":
            bias = constant(node.inputs[1])
            set_weights(graph, conv, np.ones(bias.size), bias.reshape(-1).astype(np.float64))
            replace(graph, node, conv.outputs[0])


def set_weights(
    graph: ir.Graph, conv: ir.Node, factor: Float64[np.ndarray, "channels"], shift: Float64[np.ndarray, "channels"]
) -> None:
    """Scales every output channel of a convolution and adds to it."""
    kernel, *rest = (constant(value).astype(np.float64) for value in conv.inputs[1:])
    bias = rest[0] if rest else np.zeros(len(kernel))
    names = f"{conv.name}.weight", f"{conv.name}.bias"
    arrays = kernel * factor[:, None, None, None], bias * factor + shift
    conv.resize_inputs(3)
    for index, (name, array) in enumerate(zip(names, arrays, strict=True), 1):
        conv.replace_input_with(index, add_constant(graph, name, array.astype(np.float32)))


def subsample(graph: ir.Graph) -> None:
    """Every second row and column, which is traced as two Slices, becomes a max-pool of single pixels."""
    for node in nodes(graph, "Slice"):
        columns = sole_consumer(node.outputs[0], "Slice")
        if columns is None or (steps(node), steps(columns)) != ([1, 1, 2, 1], [1, 1, 1, 2]):
            raise GraphError(node, "takes no every second row and column")
        replace(graph, columns, insert(graph, node, "MaxPool", [node.inputs[0]], kernel_shape=(1, 1), strides=(2, 2)))
        graph.remove(node, safe=True)


def steps(node: ir.Node) -> list[int]:
    """Of a Slice of whole axes, for all four of them; empty where it takes parts."""
    starts, ends, axes, strides = (constant(value) for value in node.inputs[1:])
    whole = all(starts == 0) and all(ends >= [sizes(source(node))[axis] for axis in axes])
    return [dict(zip(axes.tolist(), strides.tolist(), strict=True)).get(axis, 1) for axis in range(4)] if whole else []


def drop_unused(graph: ir.Graph) -> None:
    """Constants that nothing reads any more."""
    for name, value in tuple(graph.initializers.items()):
        if not value.uses():
            del graph.initializers[name]


def state_kernel_shapes(graph: ir.Graph) -> None:
    """TensorRT reads the size of quantized kernels from this attribute."""
    for node in nodes(graph, "Conv"):
        node.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", constant(node.inputs[1]).shape[2:])
