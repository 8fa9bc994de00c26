"""ONNX graphs that nobody means well with, each drawn from a seed."""

import contextlib
import math
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deeplab_jax.errors import InputError
from deeplab_jax.package.onnx_check.file import check_onnx_file
from deeplab_jax.package.onnx_check.operators import OPERATORS

NUMBERS = 0, 1, -1, 2, 3, 7, 255, 1000, 65536, 2**31 - 1, 2**31, -(2**31), 2**33, 2**62, 2**63 - 1, -(2**63)
SMALL = -2, -1, 0, 1, 1, 1, 2, 2, 3, 4, 5, 8
REALS = 0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e38, -1e38, math.inf, -math.inf, math.nan, 2.5, 1000.0
KNOWN_OPERATORS = sorted(OPERATORS)
ALL_OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain})
INPUT_SHAPE = 8, 3, 49, 65
OPSET = 20


def whole_numbers(chance: random.Random, count: int) -> list[int]:
    return [chance.choice(NUMBERS if chance.random() < 0.15 else SMALL) for _ in range(count)]


def constant(name: str, chance: random.Random, types: set[str] | None = None) -> TensorProto:
    """Of a type that an operator takes, mostly, and of a shape that fits now and then."""
    shape = [abs(number) % 9 for number in whole_numbers(chance, chance.randrange(5))]
    fitting = (), (1,), (3,), (3, 1, 1), (4, 3, 3, 3), (6, 1, 2, 2), (65, 5), (4,)
    shape = list(chance.choice(fitting)) if chance.random() < 0.6 else shape
    kind = chance.choice((np.float32, np.float32, np.int64, np.int32, np.uint8, np.int8, np.bool_))
    if types and chance.random() < 0.9:
        kind = np.float32 if "tensor(float)" in types else np.int64 if "tensor(int64)" in types else kind
        shape = [chance.choice((1, 2, 4, 4, 8))] if kind is np.int64 else shape
    chosen = [
        chance.choice(REALS if kind is np.float32 and chance.random() < 0.2 else SMALL) for _ in range(math.prod(shape))
    ]
    return numpy_helper.from_array(np.array(chosen, np.float64).astype(kind).reshape(shape), name)


def random_attribute(name: str, kind: int, chance: random.Random) -> Any:
    match kind:
        case onnx.AttributeProto.INT:
            return whole_numbers(chance, 1)[0]
        case onnx.AttributeProto.INTS:
            return whole_numbers(chance, chance.choice((1, 2, 2, 2, 4, 4, 3)))
        case onnx.AttributeProto.FLOAT:
            return float(chance.choice(REALS))
        case onnx.AttributeProto.FLOATS:
            return [float(chance.choice(REALS)) for _ in range(chance.randrange(1, 5))]
        case onnx.AttributeProto.STRING:
            words = {"auto_pad": ("SAME_UPPER", "VALID", "NOTSET"), "equation": ("bchw->bhwc", "bchw,bchw->bc")}
            modes = "linear", "nearest", "cubic", "constant", "reflect", "edge", "wrap", "half_pixel", "align_corners"
            return chance.choice(
                words.get(name, (*modes, "asymmetric", "tf_crop_and_resize", "round_prefer_ceil", "?"))
            )
        case onnx.AttributeProto.TENSOR:
            return constant("", chance)
        case _:
            return None


def random_node(op: str, inputs: list[str], output: str, chance: random.Random) -> onnx.NodeProto:
    schema = onnx.defs.get_schema(op, OPSET)
    attributes = {}
    for name, attribute in schema.attributes.items():
        if attribute.required or chance.random() < 0.4:
            value = random_attribute(name, int(attribute.type.value), chance)  # pyright: ignore[reportAttributeAccessIssue]
            if value is not None:
                attributes[name] = value
    return helper.make_node(op, inputs, [output], **attributes)


def random_graph(chance: random.Random) -> onnx.ModelProto:
    """A chain of operators of which each is known, with any attributes and constants."""
    nodes, constants, last = [], [], "x"
    for number in range(chance.choice((1, 1, 2, 3))):
        op = chance.choice(KNOWN_OPERATORS)
        schema = onnx.defs.get_schema(op, OPSET)
        inputs = [last]
        for place in range(1, chance.randint(schema.min_input, max(schema.min_input, min(schema.max_input, 5)))):
            inputs.append(f"k{number}_{place}")
            formal = schema.inputs[min(place, len(schema.inputs) - 1)]
            constants.append(constant(inputs[-1], chance, set(formal.types)))
        if chance.random() < 0.15 and len(inputs) > 1:
            inputs[chance.randrange(len(inputs))] = chance.choice(("x", last, ""))
        chance.shuffle(inputs) if chance.random() < 0.1 else None
        nodes.append(random_node(op, inputs[: schema.max_input], f"t{number}", chance))
        last = f"t{number}"
    nodes.append(helper.make_node("Cast", [last], ["y"], to=TensorProto.FLOAT))
    return whole_model(nodes, constants)


def whole_model(nodes: list[onnx.NodeProto], constants: list[TensorProto]) -> onnx.ModelProto:
    shape = ["b", *INPUT_SHAPE[1:]]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def crafted_graph(good: bytes, chance: random.Random) -> tuple[str, bytes]:
    """The likeliest of some random graphs to come through the check, for then ONNX Runtime gets it."""
    content, scratch = b"", Path(os.environ.get("TMPDIR", "/tmp")) / f"hostile-{os.getpid()}.onnx"
    for attempt in range(40):
        content = random_graph(chance).SerializeToString()
        scratch.write_bytes(content)
        try:
            check_onnx_file(scratch, INPUT_SHAPE)
        except InputError:
            continue
        return f"attempt {attempt} passes the check", content
    return "no attempt passes the check", content


def spoil_graph(good: bytes, chance: random.Random) -> tuple[str, bytes]:
    """A real network in which some things are changed."""
    model, stated = onnx.ModelProto.FromString(good), []
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        with contextlib.suppress(ValueError, IndexError):  # of what the change before has spoiled
            stated.append(change_graph(model, chance))
    return ", ".join(stated), model.SerializeToString()


def change_graph(model: onnx.ModelProto, chance: random.Random) -> str:
    graph = model.graph
    node, weights = chance.choice(graph.node), chance.choice(graph.initializer)
    match chance.randrange(15):
        case 0 | 1:
            listed = [a for n in graph.node for a in n.attribute if a.ints]
            attribute = chance.choice(listed)
            attribute.ints[chance.randrange(len(attribute.ints))] = number = whole_numbers(chance, 1)[0]
            return f"{attribute.name} has {number}"
        case 2:
            weights.dims[:] = whole_numbers(chance, chance.randrange(6))
            return f"{weights.name} is {list(weights.dims)}"
        case 3:
            weights.data_type = chance.randrange(25)
            return f"{weights.name} has type {weights.data_type}"
        case 4:
            node.op_type = chance.choice(KNOWN_OPERATORS if chance.random() < 0.7 else ALL_OPERATORS)
            return f"{node.name} is {node.op_type}"
        case 5:
            names = [name for n in graph.node for name in (*n.input, *n.output)] + [w.name for w in graph.initializer]
            node.input[chance.randrange(len(node.input))] = name = chance.choice((*names, "", "nothing"))
            return f"{node.name} reads {name}"
        case 6:
            shapes = [w for w in graph.initializer if w.data_type == TensorProto.INT64]
            shapes += [a.t for n in graph.node for a in n.attribute if a.HasField("t")]
            if not shapes:
                return "nothing"
            tensor = chance.choice(shapes)
            values = numpy_helper.to_array(tensor).copy()
            with np.errstate(all="ignore"):
                values.reshape(-1)[: max(values.size, 1)] = np.array(chance.choice(NUMBERS), np.int64).astype(
                    values.dtype
                )
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
            return f"the shape {tensor.name} is {values.ravel()[:3]}"
        case 7:
            times = chance.choice((1, 5, 40))
            output = graph.output[0].name
            inner = f"{output}_inner"
            for each in graph.node:
                each.output[:] = [inner if name == output else name for name in each.output]
            for number in range(times):
                after = output if number == times - 1 else f"{inner}{number}"
                graph.node.append(helper.make_node("Concat", [inner, inner], [after], axis=chance.choice((0, 1, 2, 3))))
                inner = after
            return f"doubled {times} times"
        case 8:
            node.domain = chance.choice(("com.microsoft", "evil", "ai.onnx", "ai.onnx.ml"))
            return f"{node.name} of {node.domain}"
        case 9:
            model.ir_version = chance.choice((0, 1, 3, 10, 11, 13, 99, 2**40))
            model.opset_import[0].version = chance.choice((0, 1, 5, 7, 11, 13, 18, 22, 25, 99, 2**40))
            return f"version {model.ir_version}, opset {model.opset_import[0].version}"
        case 10:
            weights.ClearField("raw_data")
            weights.data_location = TensorProto.EXTERNAL
            places = "../secret", "/etc/passwd", "/dev/zero", "weights.onnx", ".", "pipe", "absent", "link", "\0", ""
            for key, values in (("location", places), ("offset", NUMBERS), ("length", NUMBERS)):
                if key == "location" or chance.random() < 0.5:
                    weights.external_data.add(key=key, value=str(chance.choice(values)))
            return f"{weights.name} lies in {weights.external_data[0].value}"
        case 11:
            side = chance.choice(graph.input[0].type.tensor_type.shape.dim)
            side.dim_value = chance.choice(NUMBERS)
            return f"a side of the input is {side.dim_value}"
        case 12:
            model.functions.append(
                helper.make_function("f", "F", ["a"], ["b"], [helper.make_node("F", ["a"], ["b"], domain="f")], [])
            )
            node.op_type, node.domain = "F", "f"
            return "a function calls itself"
        case 13:
            values = chance.choice((math.nan, math.inf, -math.inf, 3e38, 0.0))
            if weights.data_type == TensorProto.FLOAT:
                array = np.full(tuple(weights.dims), values, np.float32)
                weights.CopyFrom(numpy_helper.from_array(array, weights.name))
            return f"{weights.name} is {values}"
        case _:
            field = chance.choice(("node", "initializer", "input", "output"))
            entries = getattr(graph, field)
            entries.append(chance.choice(entries)) if chance.random() < 0.5 else entries.pop(
                chance.randrange(len(entries))
            )
            return f"{field} has {len(entries)} entries"
