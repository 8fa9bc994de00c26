"""What TensorRT's ONNX parser takes, so that a graph can be checked on a machine without a GPU.

The rules are those of onnx-tensorrt 10.15 (docs/operators.md and onnxOpImporters.cpp); for these operators they have
been the same since 10.1. The worst of them strike without an error: a uint8 zero point is read as int8 with no more
than a warning, and a Resize to a constant size forgets that the batch is symbolic.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from deeplab_jax.errors import InputError, first_line

Shape = tuple[int | None, ...]  # None: symbolic

OPSETS = range(13, 23)  # from 13 on quantization knows channels; 22 is what ONNX Runtime 1.22 reads
FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16}
NUMBERS = FLOATS | {TensorProto.INT32, TensorProto.INT64}
ANYTHING = NUMBERS | {TensorProto.BOOL}
OPERATORS = {  # what models of the family are written with, and which types their first inputs can have
    **dict.fromkeys(("AveragePool", "BatchNormalization", "Clip", "Conv", "Einsum", "Gemm"), FLOATS),
    **dict.fromkeys(("GlobalAveragePool", "HardSigmoid", "HardSwish", "MatMul", "MaxPool", "Resize"), FLOATS),
    **dict.fromkeys(("Add", "Div", "Max", "Min", "Mul", "Pad", "Pow", "Sub"), NUMBERS),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "Relu"), NUMBERS),
    **dict.fromkeys(("Cast", "Concat", "Constant", "ConstantOfShape", "Expand", "Flatten", "Gather"), ANYTHING),
    **dict.fromkeys(("Identity", "Reshape", "Shape", "Slice", "Squeeze", "Transpose", "Unsqueeze"), ANYTHING),
    **dict.fromkeys(("QuantizeLinear", "Sigmoid", "Sqrt"), FLOATS),
    "DequantizeLinear": {TensorProto.INT8},
}
SETTINGS: dict[str, dict[str, set]] = {  # of the attributes with values that are refused: those that are not
    "BatchNormalization": {"training_mode": {0}},
    "Cast": {"to": ANYTHING},
    "Resize": {
        "antialias": {0},
        "coordinate_transformation_mode": {"half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"},
        "keep_aspect_ratio_policy": {"stretch"},
        "mode": {"nearest", "linear"},
    },
}


@dataclass(frozen=True)
class Tensors:
    """What is known of a graph's tensors by name."""

    types: dict[str, int]
    shapes: dict[str, Shape]  # of those whose rank is known
    weights: dict[str, TensorProto]  # what the parser knows while it reads: initializers and Constant nodes
    makers: dict[str, NodeProto]


def check_graph(model: onnx.ModelProto, where: object) -> Shape:
    """The (b, 3, h, w) that the graph declares for its input.

    Raises:
        InputError: that names the file (`where`) and the first faults, where TensorRT would not take the graph.
    """
    result = faults(model)
    if result:
        more = f"; and {len(result) - 3} more" if len(result) > 3 else ""
        raise InputError(f"TensorRT cannot take {where}: {'; '.join(result[:3])}{more}")
    return shape_of(model.graph.input[0])


def faults(model: onnx.ModelProto) -> list[str]:
    """Everything in the graph that TensorRT would refuse or misread, one line each."""
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset not in OPSETS:
        return [f"opset {opset} must be one of {OPSETS[0]} to {OPSETS[-1]}"]
    try:
        # Strongly typed networks cast nothing by themselves; nor does ONNX, so its own check of types does for both.
        model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        return [f"types or shapes do not fit together: {first_line(error)}"]
    result = [*port_faults("input", model.graph.input), *port_faults("output", model.graph.output)]
    tensors = survey(model.graph)
    for node in model.graph.node:
        result += [f"{node.op_type} {node.name or node.output[0]}: {fault}" for fault in node_faults(node, tensors)]
    return result


def precision(model: onnx.ModelProto) -> str:
    """What most of it is computed in: float32, float16 or int8."""
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        return "int8"
    halves = any(tensor.data_type == TensorProto.FLOAT16 for tensor in model.graph.initializer)
    return "float16" if halves else "float32"


def survey(graph: onnx.GraphProto) -> Tensors:
    infos = [*graph.input, *graph.value_info, *graph.output]
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        value = attributes(node).get("value")
        if node.op_type == "Constant" and isinstance(value, TensorProto):
            weights[node.output[0]] = value
    return Tensors(
        types={info.name: info.type.tensor_type.elem_type for info in infos}
        | {name: tensor.data_type for name, tensor in weights.items()},
        shapes={info.name: shape_of(info) for info in infos if info.type.tensor_type.HasField("shape")}
        | {name: tuple(tensor.dims) for name, tensor in weights.items()},
        weights=weights,
        makers={output: node for node in graph.node for output in node.output},
    )


def shape_of(info: ValueInfoProto) -> Shape:
    return tuple(side.dim_value if side.HasField("dim_value") else None for side in info.type.tensor_type.shape.dim)


def attributes(node: NodeProto) -> dict[str, Any]:
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def port_faults(kind: str, infos) -> Iterator[str]:
    if len(infos) != 1:
        yield f"the graph has {len(infos)} {kind}s, not one"
    for info in infos:
        shape, element = shape_of(info), info.type.tensor_type.elem_type
        if element != TensorProto.FLOAT:
            yield f"{kind} {info.name} is {type_name(element)}, not FLOAT"
        if len(shape) != 4 or (kind == "input" and shape[1] != 3):
            yield f"{kind} {info.name} is {shape}, not (batch, {3 if kind == 'input' else 'classes'}, height, width)"


def type_name(element: int) -> str:
    return TensorProto.DataType.Name(element)


def node_faults(node: NodeProto, tensors: Tensors) -> Iterator[str]:
    if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
        yield "this operator is not known to be supported"
        return
    kind = tensors.types.get(node.input[0], TensorProto.UNDEFINED) if node.input else None
    if kind is not None and kind not in OPERATORS[node.op_type]:
        yield f"its input is {type_name(kind)}"
    unknown = [name for name in (*node.input, *node.output) if name and name not in tensors.shapes]
    if unknown:
        yield f"the number of axes of {unknown[0]} is not fixed"
        return
    settings = attributes(node)
    for name, allowed in SETTINGS.get(node.op_type, {}).items():
        if name in settings and settings[name] not in allowed:
            yield f"{name} is {settings[name]!r}"
    if node.op_type in RULES:
        yield from RULES[node.op_type](node, settings, tensors)


def quantization(node: NodeProto, settings: dict[str, Any], tensors: Tensors) -> Iterator[str]:
    """Signed and symmetric; one scale for an activation, one scale or one a filter for weights, none for a bias."""
    data, scale, zero = (*node.input, "")[:3]
    if scale not in tensors.weights or zero not in tensors.weights:
        yield "scale and zero point must be constants"
        return
    scales, zeros = constant(scale, tensors), constant(zero, tensors)
    if not (np.isfinite(scales) & (scales > 0)).all():
        yield "scales must be above 0"
    if zeros.dtype != np.int8 or zeros.any() or zeros.size != scales.size:
        yield f"the zero point must be int8 0 (signed and symmetric), not {zeros.dtype} {zeros.ravel()[:1]}"
    if scales.size > 1:
        shape = tensors.shapes[data]
        if not is_weight(data, tensors):
            yield "an activation can have one scale only"
        elif settings.get("axis", 1) % len(shape) or shape[0] != scales.size:
            yield f"{scales.size} scales must lie along axis 0 of the weights {shape}"


def constant(name: str, tensors: Tensors) -> np.ndarray:
    return numpy_helper.to_array(tensors.weights[name])


def is_weight(name: str, tensors: Tensors) -> bool:
    """Whether it is a constant, or a quantized one."""
    while name in tensors.makers and tensors.makers[name].op_type in ("QuantizeLinear", "DequantizeLinear"):
        name = tensors.makers[name].input[0]
    return name in tensors.weights


def convolution(node: NodeProto, settings: dict[str, Any], tensors: Tensors) -> Iterator[str]:
    if node.input[1] not in tensors.weights and "kernel_shape" not in settings:
        yield "where its weights are computed, as by DequantizeLinear, it needs the attribute kernel_shape"
    yield from padding(node, settings, tensors)


def pooling(node: NodeProto, settings: dict[str, Any], tensors: Tensors) -> Iterator[str]:
    if set(settings.get("dilations", ())) - {1}:
        yield "it cannot be dilated"
    if len(node.output) > 1:
        yield "it can have one output only"
    yield from padding(node, settings, tensors)


def padding(node: NodeProto, settings: dict[str, Any], tensors: Tensors) -> Iterator[str]:
    if settings.get("auto_pad", "").startswith("SAME") and "pads" in settings:
        yield "it has both auto_pad and pads"


def resizing(node: NodeProto, settings: dict[str, Any], tensors: Tensors) -> Iterator[str]:
    data, _, scales, sizes = (*node.input, "", "", "")[:4]
    shape = tensors.shapes[data]
    if sizes:
        if sizes in tensors.weights and None in shape:
            yield "a constant size fixes the batch too; take the size from a Shape node"
    elif scales in tensors.weights:
        factors = zip(settings.get("axes", range(len(shape))), constant(scales, tensors), strict=True)
        for side, factor in ((shape[axis], factor) for axis, factor in factors):
            if side is not None and int(np.float32(side) * factor) != int(side * float(factor)):
                grown = round(side * float(factor))
                yield f"whether {side} px grow to {grown} is left to rounding; take a slightly larger scale"
    elif scales and "axes" in settings:
        yield "scales that are computed go with all axes only"


def reduction(node: NodeProto, settings: dict[str, Any], tensors: Tensors) -> Iterator[str]:
    if len(node.input) > 1 and node.input[1] not in tensors.weights:
        yield "its axes must be a constant"


RULES = {
    "AveragePool": pooling,
    "Conv": convolution,
    "DequantizeLinear": quantization,
    "MaxPool": pooling,
    "QuantizeLinear": quantization,
    "ReduceMean": reduction,
    "Resize": resizing,
}
