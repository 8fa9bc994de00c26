"""Inputs that nobody means well with, each drawn from a seed: spoiled packages, crafted graphs, things for pictures."""

import json
import math
import os
import random
import shutil
import struct
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from deeplab_jax.errors import InputError
from deeplab_jax.inference.onnx_check.file import check_onnx_file
from deeplab_jax.inference.onnx_check.sizes import RULES

NUMBERS = 0, 1, -1, 2, 3, 7, 255, 1000, 65536, 2**31 - 1, 2**31, -(2**31), 2**33, 2**62, 2**63 - 1, -(2**63)
SMALL = -2, -1, 0, 1, 1, 1, 2, 2, 3, 4, 5, 8
REALS = 0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e38, -1e38, math.inf, -math.inf, math.nan, 2.5, 1000.0
TEXTS = (
    "",
    " ",
    "\0",
    "../../../../etc/passwd",
    "/dev/zero",
    "A" * 100_000,
    "%s%n",
    "café",
    "\ud800",
    "null",
    "\n\n",
    "-1",
)
OPERATORS = sorted(RULES)
ALL_OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain})
INPUT_SHAPE = 8, 3, 49, 65
OPSET = 20


def bad_json(chance: random.Random) -> Any:
    depth = chance.choice((2, 50))
    nested: Any = 1
    for _ in range(depth):
        nested = [nested] if chance.random() < 0.5 else {"x": nested}
    return chance.choice(
        (None, True, False, [], {}, nested, *NUMBERS, *REALS, *TEXTS, [1] * 1000, 10**30, 10**5000 % 7)
    )


# ---------------------------------------------------------------- bytes and text of any file


def spoil_bytes(content: bytes, chance: random.Random) -> tuple[str, bytes]:
    data = bytearray(content)
    match chance.randrange(6):
        case 0:
            end = chance.randrange(len(data))
            return f"cut at {end}", bytes(data[:end])
        case 1:
            for _ in range(count := chance.choice((1, 2, 5, 50))):
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            return f"{count} bits flipped", bytes(data)
        case 2:
            at, length = chance.randrange(len(data)), chance.choice((1, 8, 100, 5000))
            data[at : at + length] = chance.choice((b"\0", b"\xff", b"\x7f")) * length
            return f"{length} bytes overwritten at {at}", bytes(data)
        case 3:
            at, source, length = chance.randrange(len(data)), chance.randrange(len(data)), chance.choice((4, 100, 5000))
            data[at:at] = data[source : source + length]
            return f"{length} bytes of {source} repeated at {at}", bytes(data)
        case 4:
            at, length = chance.randrange(len(data)), chance.choice((1, 10, 1000))
            del data[at : at + length]
            return f"{length} bytes taken out at {at}", bytes(data)
        case _:
            return "random bytes", chance.randbytes(chance.choice((0, 1, 8, 100, 10_000)))


def spoil_json(content: bytes, chance: random.Random) -> tuple[str, bytes]:
    if chance.random() < 0.2:
        return spoil_bytes(content, chance)
    if chance.random() < 0.1:
        depth = chance.choice((100, 100_000))
        return f"{depth} deep", chance.choice((b"[", b'{"x":')) * depth
    document = json.loads(content)
    parent, way = document, []
    while isinstance(parent, (dict, list)) and parent:
        key = chance.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
        way.append(key)
        if not isinstance(parent[key], (dict, list)) or not parent[key] or chance.random() < 0.3:
            break
        parent = parent[key]
    if chance.random() < 0.2:
        del parent[way[-1]]
        return f"{way} deleted", json.dumps(document).encode()
    parent[way[-1]] = value = bad_json(chance)
    return f"{way} = {value!r:.40}", json.dumps(document).encode("utf-8", "surrogatepass")


def spoil_names(content: bytes, chance: random.Random) -> tuple[str, bytes]:
    options = (
        b"",
        b"background",
        b"background\nbackground\n" * 2,
        b"\xef\xbb\xbf" + content,
        content + chance.randbytes(50),
        content + b"\0\n",
        content.replace(b"\n", b"\r"),
        b"background\n" + b"x" * 10**6,
        b"background\n" + b"x\n" * 10**6,
        b"BACKGROUND\n../../a\n/etc/passwd\n$x\nb\n",
        "background\nгород\n☃\n\u202e\na\n".encode(),
    )
    number = chance.randrange(len(options))
    return f"variant {number}", options[number]


def spoil_safetensors(content: bytes, chance: random.Random) -> tuple[str, bytes]:
    if chance.random() < 0.5:
        return spoil_bytes(content, chance)
    length = struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    name = chance.choice([key for key in header if key != "__metadata__"])
    match chance.randrange(6):
        case 0:
            return "length of the header", struct.pack("<Q", chance.choice(NUMBERS) % 2**64) + content[8:]
        case 1:
            header[name]["shape"] = [abs(chance.choice(NUMBERS)) for _ in range(chance.randrange(5))]
        case 2:
            header[name]["data_offsets"] = [abs(chance.choice(NUMBERS)), abs(chance.choice(NUMBERS))]
        case 3:
            header[name]["dtype"] = chance.choice(("F64", "BF16", "I8", "BOOL", "F8_E4M3", "X", 1, None))
        case 4:
            header[chance.choice(TEXTS[:-3])] = header.pop(name) if chance.random() < 0.5 else dict(header[name])
        case _:
            header[name] = bad_json(chance)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return f"header of {name}", struct.pack("<Q", len(text)) + text + data


# ---------------------------------------------------------------- graphs


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
        op = chance.choice(OPERATORS)
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
    model, said = onnx.ModelProto.FromString(good), []
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        said.append(change_graph(model, chance))
    return ", ".join(said), model.SerializeToString()


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
            node.op_type = chance.choice(OPERATORS if chance.random() < 0.7 else ALL_OPERATORS)
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


# ---------------------------------------------------------------- packages

SPOILERS: dict[str, tuple[str, str, Callable[[bytes, random.Random], tuple[str, bytes]]]] = {
    "onnx bytes": ("onnx", "weights.onnx", spoil_bytes),
    "onnx spoiled graph": ("onnx", "weights.onnx", spoil_graph),
    "onnx crafted graph": ("onnx", "weights.onnx", crafted_graph),
    "onnx json": ("onnx", "inference_config.json", spoil_json),
    "onnx model json": ("onnx", "model_config.json", spoil_json),
    "onnx class names": ("onnx", "class_names.txt", spoil_names),
    "jax weights": ("jax", "weights.safetensors", spoil_safetensors),
    "jax architecture": ("jax", "architecture.json", spoil_json),
    "jax json": ("jax", "inference_config.json", spoil_json),
}


def spoiled_package(kind: str, good: dict[str, Path], folder: Path, chance: random.Random) -> str:
    """Writes a package into the new folder; returns what is wrong with it."""
    if kind == "files":
        return swapped_file(good[chance.choice(("onnx", "jax"))], folder, chance)
    engine, file, spoil = SPOILERS[kind]
    shutil.copytree(good[engine], folder)
    (folder / "link").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe")
    said, content = spoil((folder / file).read_bytes(), chance)
    (folder / file).write_bytes(content)
    return said


def swapped_file(good: Path, folder: Path, chance: random.Random) -> str:
    """A package in which a file is none."""
    shutil.copytree(good, folder)
    file = chance.choice(sorted(folder.iterdir()))
    file.unlink()
    match what := chance.choice(("missing", "folder", "pipe", "loop", "zeros", "sparse", "memory")):
        case "folder":
            file.mkdir()
        case "pipe":
            os.mkfifo(file)
        case "loop":
            file.symlink_to(file)
        case "zeros":
            file.symlink_to("/dev/zero")
        case "sparse":
            file.touch()
            os.truncate(file, 1 << 31)
        case "memory":
            file.symlink_to("/proc/self/mem")
    return f"{file.name}: {what}"


# ---------------------------------------------------------------- what is called for a picture


def odd_picture(chance: random.Random, folder: Path) -> Any:
    height, width = chance.choice(
        ((1, 1), (1, 10_000), (10_000, 1), (3, 3), (49, 65), (7, 1000), (0, 5), (2, 0), (64, 64))
    )
    noise = np.random.default_rng(chance.randrange(2**32))
    picture = noise.integers(0, 256, (height, width, 3), np.uint8)
    match chance.randrange(16):
        case 0:
            return picture
        case 1:
            return noise.integers(0, 256, (height, width), np.uint8)
        case 2:
            return noise.integers(0, 256, (height, width, chance.choice((0, 1, 2, 4, 5))), np.uint8)
        case 3:
            kind = chance.choice((np.float16, np.float32, np.float64, np.longdouble))
            return (picture * chance.choice((1, 1 / 255, -1, 1e6))).astype(kind)
        case 4:
            floats = picture.astype(np.float32)
            floats[: chance.randrange(1, 3)] = chance.choice(REALS)
            return floats
        case 5:
            kinds = (
                np.uint16,
                np.int8,
                np.int16,
                np.int32,
                np.uint64,
                np.int64,
                np.bool_,
                np.complex64,
                object,
                "U3",
                "M8[s]",
            )
            return picture.astype(chance.choice(kinds))
        case 6:
            return picture[::-1, ::-2, ::-1]
        case 7:
            return np.asfortranarray(picture).astype(chance.choice((">u2", ">f4", "u1")))
        case 8:
            return picture[chance.choice((None, 0, (0, 0), (None, None)))] if height and width else picture
        case 9:
            return np.broadcast_to(picture[:1, :1], (chance.choice((10, 2**14)), 2**13, 3)) if picture.size else picture
        case 10:
            modes = "1", "L", "P", "RGBA", "CMYK", "I", "F", "LAB", "HSV", "LA", "YCbCr", "I;16"
            return Image.new(chance.choice(modes), (chance.choice((1, 40)), chance.choice((1, 30))))
        case 11:
            path = folder / chance.choice(("a.png", "a.jpg", "a.gif", "a.txt", "a.bmp"))
            Image.new("RGB", (50, 40), "red").save(path, "JPEG" if path.suffix == ".txt" else None)
            path.write_bytes(spoil_bytes(path.read_bytes(), chance)[1])
            return chance.choice((path, str(path)))
        case 12:
            return chance.choice(
                ("", "absent.png", "/dev/zero", "/etc/passwd", "\0", str(folder), Path("."), "a" * 5000)
            )
        case 13:
            return chance.choice(
                (None, 0, 1.5, b"\xff\xd8", {}, {"image": picture}, set(), object(), type, iter([picture]))
            )
        case 14:
            return chance.choice(
                ([], (), [[]], [None], [[picture]], [picture, "absent"], [[1, 2], [3]], [picture] * 40)
            )
        case _:
            import torch

            tensor = torch.from_numpy(picture)
            changes: tuple[Callable[[], Any], ...] = (
                lambda: tensor,
                lambda: tensor.permute(2, 0, 1),
                lambda: tensor.permute(2, 0, 1).expand(3, 3, height, width),
                lambda: tensor.float() * chance.choice(REALS),
                lambda: tensor.to(torch.bfloat16),
                lambda: tensor.to(torch.complex64),
                lambda: tensor.to(torch.int32).to_sparse(),
                lambda: torch.empty(tensor.shape, device="meta"),
                lambda: tensor.permute(2, 0, 1).float().requires_grad_(),
            )
            return chance.choice(changes)()


def odd_arguments(chance: random.Random) -> dict[str, Any]:
    confidences = (*REALS, None, "best", "default", "0.5", "nan", 0, 1, 2, True, [0.5], {}, Decimal("0.5"), 10**400)
    confidences += (np.float32(0.5), np.array([0.1, 0.2]), np.array(0.5), 0.5j, b"x")
    arguments = {}
    if chance.random() < 0.4:
        arguments["confidence"] = chance.choice(confidences)
    if chance.random() < 0.2:
        arguments["input_color_format"] = chance.choice(("rgb", "bgr", "RGB", "", None, 3, [], {}))
    return arguments
