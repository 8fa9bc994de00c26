"""Makes a graph that was traced at one size hold for any, and fixes it to another."""

import numpy as np
import onnx_ir as ir

from converters.export.onnx_graph.graph import (
    GraphError,
    add_constant,
    constant,
    infer_shapes,
    insert,
    nodes,
    producer,
    sizes,
    source,
)
from converters.export.onnx_graph.passes import resize_scales

TRACED = (128, 160)  # divisible by 32: only TensorFlow's "SAME" then pads unevenly, and no feature map is one pixel


def generalize(model: ir.Model) -> ir.Model:
    """Any batch, height and width: no number in the graph depends on them.

    A max-pool or convolution that pads (0, 1) at the traced size is TensorFlow's "SAME". A resized feature map takes
    the size of the one that it is put beside, the logits that of the image.
    """
    graph = model.graph
    images, logits = graph.inputs[0], graph.outputs[0]
    for node in (*nodes(graph, "Conv"), *nodes(graph, "MaxPool")):
        pads = node.attributes["pads"].as_ints() if "pads" in node.attributes else (0, 0, 0, 0)
        if pads == (0, 0, 1, 1):
            del node.attributes["pads"]
            node.attributes["auto_pad"] = ir.AttrString("auto_pad", "SAME_UPPER")
        elif pads[:2] != pads[2:]:
            raise GraphError(node, f"pads by {pads}")
    for node in nodes(graph, "Resize"):
        # All four sizes: with `axes`, ONNX Runtime takes rows for channels where it turns a quantized graph to NHWC.
        planes = insert(graph, node, "Shape", [source(node)], start=0, end=2)
        sides = insert(graph, node, "Shape", [images if node.outputs[0] is logits else neighbor(node)], start=2, end=4)
        node.resize_inputs(4)
        node.replace_input_with(2, None)
        node.replace_input_with(3, insert(graph, node, "Concat", [planes, sides], axis=0))
    graph.sort()  # the neighbor may have come later
    images.shape = ir.Shape(["batch", channels(images), "height", "width"])
    logits.shape = ir.Shape(["batch", channels(logits), "height", "width"])
    return infer_shapes(model)


def neighbor(node: ir.Node) -> ir.Value:
    """A feature map that has its size already and is concatenated with the resized one."""
    (concat,) = node.outputs[0].consumers()
    for value in concat.inputs if concat.op_type == "Concat" else ():
        producer = value.producer() if value is not None else None
        if value is not None and (producer is None or producer.op_type != "Resize"):
            return value
    raise GraphError(node, "takes its size from nothing")


def fix_size(model: ir.Model, size: tuple[int, int]) -> ir.Model:
    """A general graph for images of one size: no Shape is left, and no tap of a kernel that sees padding alone."""
    model = model.clone()
    images = model.graph.inputs[0]
    images.shape = ir.Shape([1, channels(images), *size])
    model.graph.outputs[0].shape = None
    model = infer_shapes(model)
    graph = model.graph
    for node in nodes(graph, "Resize"):
        concat = producer(node.inputs[3])
        node.replace_input_with(
            2, add_constant(graph, "scales", resize_scales(sizes(node.inputs[0]), sizes(node.outputs[0])))
        )
        node.replace_input_with(3, None)
        node.resize_inputs(3)
        graph.remove([concat, *map(producer, concat.inputs)], safe=True)
    for node in (*nodes(graph, "Conv"), *nodes(graph, "MaxPool")):
        if "auto_pad" in node.attributes:
            del node.attributes["auto_pad"]
            before = [side % 2 for side in sizes(node.inputs[0])[2:]]
            node.attributes["pads"] = ir.AttrInt64s("pads", [*before, 1, 1])
    for node in nodes(graph, "Conv"):
        drop_unreached_taps(graph, node)
    for value in (*graph.inputs, *graph.outputs):
        value.shape = ir.Shape(["batch", *sizes(value)[1:]])
    return infer_shapes(model)


def channels(value: ir.Value) -> int:
    assert value.shape is not None
    count = value.shape[1]
    assert isinstance(count, int)
    return count


def drop_unreached_taps(graph: ir.Graph, conv: ir.Node) -> None:
    """Rows and columns of a kernel that see padding alone, as those of large atrous rates do, are left out."""
    kernel = whole = constant(conv.inputs[1])
    dilations, pads = conv.attributes["dilations"].as_ints(), [*conv.attributes["pads"].as_ints()]
    for axis, (size, dilation) in enumerate(zip(sizes(conv.inputs[0])[2:], dilations, strict=True)):
        if kernel.shape[2 + axis] == 3 and pads[axis] == pads[2 + axis] == dilation >= size:
            kernel = np.take(kernel, [1], 2 + axis)
            pads[axis] = pads[2 + axis] = 0
    if kernel is not whole:
        conv.replace_input_with(1, add_constant(graph, f"{conv.name}.weight", kernel))
        conv.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", kernel.shape[2:])
        conv.attributes["pads"] = ir.AttrInt64s("pads", pads)
