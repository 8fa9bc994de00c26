"""Smaller numbers inside a float32 graph: half precision, or 8-bit integers calibrated on images."""

import logging
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnxruntime import quantization

from converters.export.onnx_graph.graph import add_constant, constant, described, insert, is_constant
from converters.export.onnx_graph.names import name_all
from converters.export.onnx_graph.passes import drop_unused
from converters.export.onnx_graph.session import OneImage

SMALLEST = float(np.finfo(np.float16).tiny)  # weights that are all below lose their digits
LARGEST = float(np.finfo(np.float16).max) / 8  # what may grow on other images by that factor stays float32


def to_float16(graph: onnx.ModelProto, images: Iterable[OneImage]) -> onnx.ModelProto:
    """Weights and tensors in half precision, input and output in float32.

    Overflow-safe: nodes whose weights or whose results on the images come near the largest half number stay float32,
    as do those whose weights are all below the smallest. So do means over a whole feature map, whose sums some engines
    keep in half precision, and the last upsampling, as the logits are float32.
    """
    largest = largest_values(graph, images)
    model = ir.from_proto(graph)
    for node in model.graph:
        weights = [float(np.abs(constant(value)).max()) for value in node.inputs if is_constant(value)]
        fits = all(peak < LARGEST for peak in (*weights, largest[str(node.outputs[0].name)]))
        fits &= all(peak == 0 or peak > SMALLEST for peak in weights)
        wide = node.op_type == "GlobalAveragePool" or node.outputs[0].is_graph_output()
        node.meta["half"] = fits and not wide and node.outputs[0].dtype == ir.DataType.FLOAT
    halve(model.graph)
    return described(ir.to_proto(model))


def halve(graph: ir.Graph) -> None:
    """Nodes marked `half` read and write float16; a Cast lies where the two precisions meet."""
    halves = {node.outputs[0] for node in graph if node.meta["half"]}
    casts: dict[ir.Value, ir.Value] = {}
    for node in tuple(graph):
        for index, value in enumerate(node.inputs):
            if value is None or value.dtype != ir.DataType.FLOAT or (node.op_type == "Resize" and index > 0):
                continue
            if is_constant(value):
                if node.meta["half"]:
                    node.replace_input_with(index, add_constant(graph, value.name, constant(value).astype(np.float16)))
            elif node.op_type != "Shape" and node.meta["half"] != (value in halves):
                if value not in casts:
                    to = ir.DataType.FLOAT16 if node.meta["half"] else ir.DataType.FLOAT
                    casts[value] = insert(graph, node, "Cast", [value], to=int(to))
                node.replace_input_with(index, casts[value])
    for value in halves:
        value.type = ir.TensorType(ir.DataType.FLOAT16)
    drop_unused(graph)
    name_all(graph)


def largest_values(graph: onnx.ModelProto, images: Iterable[OneImage]) -> dict[str, float]:
    """Of every tensor that a node makes: the largest magnitude on the images."""
    probe = onnx.ModelProto()
    probe.CopyFrom(graph)
    del probe.graph.output[:]
    names = [node.output[0] for node in graph.graph.node]
    for name in names:
        magnitude, peak = onnx.helper.make_node("Abs", [name], [f"{name}|"]), f"{name}|max"
        probe.graph.node.extend([magnitude, onnx.helper.make_node("ReduceMax", [f"{name}|"], [peak], keepdims=0)])
        probe.graph.output.append(onnx.helper.make_empty_tensor_value_info(peak))
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    peaks = [session.run(None, {"images": image}) for image in images]
    return dict(zip(names, np.max(np.array(peaks, np.float64), axis=0).tolist(), strict=True))


def to_int8(
    graph: onnx.ModelProto, images: Iterable[OneImage], *, symmetric: bool = False, spared: Sequence[str] = ()
) -> onnx.ModelProto:
    """Weights and tensors in 8 bits behind QuantizeLinear and DequantizeLinear, weights per output channel.

    The classifier and the upsampling of its logits stay float32: they cost little, and confidences need them.

    Weights are whole numbers from -64 to 64: on x86 CPUs without VNNI, ONNX Runtime adds two products of an unsigned
    value and a weight in 16 bits, which hold 2 * 255 * 64; what is more saturates, and the map is not that of other
    CPUs. Where no two products are added so, weights have all 8 bits: in depthwise convolutions, and for TensorRT.

    Args:
        graph: the float32 graph.
        images: from which the range of every tensor is taken.
        symmetric: signed, zero at 0, biases in float32, as TensorRT wants it; CPUs are faster and closer without.
        spared: names of modules that stay in float32 too.
    """
    signed, unsigned = quantization.QuantType.QInt8, quantization.QuantType.QUInt8
    if symmetric:
        options = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
    else:
        full = [{"axis": 0, "reduce_range": False}]
        options = {"TensorQuantOverrides": dict.fromkeys(depthwise_weights(graph), full)}
    modules = ("classifier", *(f"{name}." for name in spared))
    ends = [node.name for node in graph.graph.node if node.name.startswith(modules)]
    with tempfile.TemporaryDirectory() as scratch, quiet():
        before, after = Path(scratch, "float32.onnx"), Path(scratch, "int8.onnx")
        onnx.save(graph, str(before))
        quantization.quantize_static(
            str(before),
            str(after),
            Calibration(images),
            per_channel=True,
            reduce_range=not symmetric,
            activation_type=signed if symmetric else unsigned,
            weight_type=signed,
            nodes_to_exclude=ends,
            extra_options=options,
        )
        quantized = onnx.load(str(after))
    # The quantizer leaves shapes of tensors that are no more, and signs as the maker.
    quantized.producer_name, quantized.producer_version = graph.producer_name, graph.producer_version
    del quantized.metadata_props[:]
    quantized.metadata_props.extend(graph.metadata_props)
    return described(quantized)


def depthwise_weights(graph: onnx.ModelProto) -> list[str]:
    """The weights of the convolutions in which every output channel sees one input channel, its own."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.graph.initializer}
    result = []
    for node in graph.graph.node:
        if node.op_type == "Conv":
            groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
            if shapes[node.input[1]][:2] == (groups, 1):
                result.append(node.input[1])
    return result


class Calibration(quantization.CalibrationDataReader):
    def __init__(self, images: Iterable[OneImage]):
        self.images = iter(images)

    def get_next(self) -> Any:
        image = next(self.images, None)
        return None if image is None else {"images": image}


class quiet:
    """Without the quantizer's advice to prepare the graph in ways that it is prepared in already."""

    def __enter__(self) -> None:
        logging.disable(logging.WARNING)

    def __exit__(self, *_) -> None:
        logging.disable(logging.NOTSET)
