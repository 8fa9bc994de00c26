"""Checks weights.onnx before an engine reads it. A package may come from anywhere: a graph is data until it is known.

ONNX Runtime believes a file. Depending on its version, a crafted one makes it read files outside of the package, take
all memory, run for ever or crash (experiments/checks/hostile_inputs.py has examples). So the file is read here first,
as protobuf messages in a memory map, and no value in it is copied: what it declares must be there, it may use nothing
but plain operators on dense tensors, and `sizes` must know the size of everything that they compute.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deeplab_jax.errors import InputError
from deeplab_jax.package.onnx_check.graph import MOST_SIDES, MOST_VALUES, Node, Shape, Tensor
from deeplab_jax.package.onnx_check.sizes import check_sizes
from deeplab_jax.protobuf import Malformed, Wire, fields, text, varints

OLDEST_IR, OLDEST_OPSET = 3, 7
MOST_FILE_BYTES = 1 << 31  # Protocol Buffers' own limit
MOST_FIELDS = 1 << 19  # of messages: they cost time here, and a network has some thousands
MOST_NODES = 1 << 14
MOST_NAME_BYTES = 4096
STANDARD_DOMAINS = "", "ai.onnx"


class Storage(NamedTuple):
    dtype: str
    listed_in: int  # the field of a TensorProto with the values of this type, if they are not raw bytes


TYPES = {  # onnx.TensorProto.DataType
    1: Storage("<f4", 4),
    2: Storage("u1", 5),
    3: Storage("i1", 5),
    4: Storage("<u2", 5),
    5: Storage("<i2", 5),
    6: Storage("<i4", 5),
    7: Storage("<i8", 7),
    9: Storage("?", 5),
    10: Storage("<f2", 5),
    11: Storage("<f8", 10),
    12: Storage("<u4", 11),
    13: Storage("<u8", 11),
    16: Storage("<u2", 5),  # bfloat16
}
FIXED_WIDTH = {4: 4, 10: 8}  # bytes of the listed values that are no varints
# AttributeProto.type, and the field with the value. What is missing are graphs, sparse tensors and types.
FLOAT, INT, STRING, TENSOR, FLOATS, INTS, STRINGS = 1, 2, 3, 4, 6, 7, 8
ATTRIBUTE_FIELDS = {FLOAT: 2, INT: 3, STRING: 4, TENSOR: 5, FLOATS: 7, INTS: 8, STRINGS: 9}


def check_onnx_file(path: Path, input_shape: Shape) -> None:
    """Raises InputError unless the file, with the files of its external data, is safe to give to ONNX Runtime.

    Args:
        path: the file; external data must lie in its folder.
        input_shape: the largest (batch, channels, height, width) to come; it counts where the graph leaves a side free.
    """
    try:
        size = path.stat().st_size
        if size > MOST_FILE_BYTES:
            raise Malformed(f"it has {size} bytes; external data is for more than {MOST_FILE_BYTES}")
        data = np.memmap(path, np.uint8, "r").data
        Reader(path.parent).check_model(data, input_shape)
    except (OSError, ValueError) as error:  # np.memmap's for an empty file, and Malformed
        raise InputError(f"{path} cannot be used: {error}") from None


@dataclass
class Message:
    """The fields of a message that are looked for, by number and wire type as Protocol Buffers knows them."""

    result: dict[tuple[int, int], list[Any]]

    def many(self, number: int, wire: Wire = Wire.BYTES) -> list[Any]:
        return self.result.get((number, wire), [])

    def one(self, number: int, wire: Wire = Wire.BYTES) -> Any:
        """None where there is none."""
        values = self.many(number, wire)
        if len(values) > 1:
            raise Malformed(f"field {number} is given {len(values)} times")
        return values[0] if values else None

    def text(self, number: int) -> str:
        return name_text(self.one(number) or memoryview(b""))

    def texts(self, number: int) -> list[str]:
        return [name_text(value) for value in self.many(number)]

    def integer(self, number: int) -> int:
        return signed(self.one(number, Wire.VARINT) or 0)

    def integers(self, number: int) -> list[int]:
        if sum(map(len, self.many(number))) > 10 * MOST_VALUES:
            raise Malformed(f"field {number} lists more than {MOST_VALUES} numbers")
        packed = (value for part in self.many(number) for value in varints(part))
        return [signed(value) for value in (*self.many(number, Wire.VARINT), *packed)]


def name_text(value: memoryview) -> str:
    if len(value) > MOST_NAME_BYTES:
        raise Malformed(f"a name has {len(value)} bytes")
    return text(value)


def signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


@dataclass
class Reader:
    folder: Path
    fields_left: Iterator[int] = field(default_factory=lambda: iter(range(MOST_FIELDS)))
    external_sizes: dict[str, int] = field(default_factory=dict)

    def read(self, data: memoryview) -> Message:
        result = defaultdict(list)
        for number, wire, value in fields(data):
            if next(self.fields_left, None) is None:
                raise Malformed(f"it has more than {MOST_FIELDS} fields")
            result[number, wire].append(value)
        return Message(result)

    def check_model(self, data: memoryview, input_shape: Shape) -> None:
        model = self.read(data)
        version = model.integer(1)
        opsets = {each.text(1): each.integer(2) for each in map(self.read, model.many(8))}
        opset = max((opsets.get(domain, 0) for domain in STANDARD_DOMAINS), default=0)
        graph = model.one(7)
        if graph is None or version < OLDEST_IR or opset < OLDEST_OPSET:
            raise Malformed(f"it is no ONNX file of IR version {OLDEST_IR} and opset {OLDEST_OPSET} or newer")
        if model.many(20) or model.many(25):
            raise Malformed("it has functions or training steps; export the graph without them")
        graph = self.read(graph)
        if len(graph.many(1)) > MOST_NODES:
            raise Malformed(f"it has {len(graph.many(1))} nodes, more than {MOST_NODES}")
        if graph.many(15):
            raise Malformed("it has sparse weights; export them dense")
        constants = dict(map(self.tensor, graph.many(5)))
        if len(constants) < len(graph.many(5)):
            raise Malformed("two weights have one name")
        inputs = dict(map(self.declared, graph.many(11)))
        outputs = [self.read(value).text(1) for value in graph.many(12)]
        free = {name: shape for name, shape in inputs.items() if name not in constants}
        if len(free) != 1 or not outputs:
            raise Malformed(f"it must have one input and an output, not {list(free)} and {outputs}")
        (name, sides), *_ = free.items()
        check_sizes(map(self.node, graph.many(1)), constants, name, filled_up(sides, input_shape), outputs[0])

    def declared(self, data: memoryview) -> tuple[str, list[int]]:
        """Name and shape of a ValueInfoProto; 0 for a side that is free."""
        value = self.read(data)
        shape: Message | None = value
        for number in (2, 1, 2):  # type, tensor_type, shape
            inner = shape.one(number) if shape else None
            shape = None if inner is None else self.read(inner)
        sides = [self.read(side).integer(1) for side in shape.many(1)] if shape else []
        return value.text(1), [max(side, 0) for side in sides]

    def tensor(self, data: memoryview) -> tuple[str, Tensor]:
        """Name and shape of a TensorProto, and the values of a small one."""
        tensor = self.read(data)
        name, kind, shape = tensor.text(8), tensor.integer(2), tuple(tensor.integers(1))
        if kind not in TYPES:
            raise Malformed(f"the weights {name!r} have the type {kind}, which is not read here")
        if len(shape) > MOST_SIDES or min(shape, default=0) < 0 or math.prod(max(side, 1) for side in shape) >> 40:
            raise Malformed(f"the weights {name!r} have the shape {shape[: MOST_SIDES + 1]}")
        count, dtype = math.prod(shape), np.dtype(TYPES[kind].dtype)
        raw = tensor.one(9)
        external = tensor.integer(14) or tensor.many(13)
        if external:
            stored = self.external(name, tensor, count * dtype.itemsize) / dtype.itemsize
        elif raw is not None:
            stored = len(raw) / dtype.itemsize
        else:
            stored = listed_count(tensor, TYPES[kind].listed_in)
        if stored != count:
            raise Malformed(f"the weights {name!r} of shape {shape} are {stored:g} values")
        value = None
        if count <= MOST_VALUES and not external:
            value = listed(tensor, TYPES[kind]) if raw is None else np.frombuffer(raw, dtype)
        return name, Tensor(kind, shape, None if value is None else value.reshape(shape))

    def external(self, name: str, tensor: Message, needed: int) -> int:
        """The number of bytes that a tensor has in another file of the folder. Nothing is read from there."""
        entries = {entry.text(1): entry.text(2) for entry in map(self.read, tensor.many(13))}
        location, offset, length = (entries.get(key) for key in ("location", "offset", "length"))
        what = f"the weights {name!r} lie in {location!r}"
        if not location or "\0" in location or tensor.many(9) or tensor.integer(14) != 1:
            raise Malformed(f"{what}, or here: it does not say clearly")
        if location not in self.external_sizes:
            file = (self.folder / location).resolve()
            if Path(location).is_absolute() or self.folder.resolve() not in file.parents or not file.is_file():
                raise Malformed(f"{what}, which is no file in the package")
            self.external_sizes[location] = file.stat().st_size
        start, size = natural(offset or "0"), natural(length or str(needed))
        if start is None or size is None or start + size > self.external_sizes[location]:
            raise Malformed(f"{what}, whose {self.external_sizes[location]} bytes do not hold {offset!r} + {length!r}")
        return size

    def node(self, data: memoryview) -> Node:
        node = self.read(data)
        inputs, outputs, op, domain = node.texts(1), node.texts(2), node.text(4), node.text(7)
        if domain not in STANDARD_DOMAINS:
            raise Malformed(f"the operator {op!r} of {domain!r} is none of the ONNX standard's")
        attributes = dict(map(self.attribute, node.many(5)))
        if len(attributes) < len(node.many(5)):
            raise Malformed(f"the node {node.text(3)!r} has two attributes of one name")
        return Node(node.text(3) or next(iter(outputs), ""), op, inputs, outputs, attributes)

    def attribute(self, data: memoryview) -> tuple[str, Any]:
        attribute = self.read(data)
        name, kind = attribute.text(1), attribute.integer(20)
        if kind not in ATTRIBUTE_FIELDS:
            raise Malformed(f"the attribute {name!r} is a graph or of another kind that is not read here")
        number = ATTRIBUTE_FIELDS[kind]
        values: dict[int, Callable[[], Any]] = {
            FLOAT: lambda: float(np.frombuffer(attribute.one(number, Wire.FIXED32) or bytes(4), "<f4")[0]),
            INT: lambda: attribute.integer(number),
            STRING: lambda: bytes(attribute.one(number) or b""),
            TENSOR: lambda: self.tensor(attribute.one(number) or memoryview(b""))[1],
            FLOATS: lambda: float_list(attribute, number),
            INTS: lambda: attribute.integers(number),
            STRINGS: lambda: [bytes(value) for value in attribute.many(number)],
        }
        return name, values[kind]()


def filled_up(sides: list[int], free: Shape) -> Shape:
    """The input's shape, with these sides where it is free."""
    if len(sides) != len(free):
        raise Malformed(f"its input must have the sides (batch, channels, height, width), not {sides[:9]}")
    return tuple(side or usual for side, usual in zip(sides, free, strict=True))


def float_list(message: Message, number: int) -> np.ndarray:
    return np.frombuffer(b"".join((*message.many(number, Wire.FIXED32), *message.many(number))), "<f4")


def listed(tensor: Message, storage: Storage) -> np.ndarray | None:
    """Values that are listed as floats or as 64-bit integers; others make no shapes."""
    if storage.listed_in == 4:
        return float_list(tensor, 4)
    return np.array(tensor.integers(7), np.int64) if storage.listed_in == 7 else None


def listed_count(tensor: Message, number: int) -> int | float:
    """How many values are listed in a field, without reading them: the last byte of a varint is less than 128."""
    packed = tensor.many(number)
    if number in FIXED_WIDTH:
        wire = Wire.FIXED32 if FIXED_WIDTH[number] == 4 else Wire.FIXED64
        return len(tensor.many(number, wire)) + sum(map(len, packed)) / FIXED_WIDTH[number]
    ends = sum(int(np.count_nonzero(np.frombuffer(part, np.uint8) < 128)) for part in packed)
    return len(tensor.many(number, Wire.VARINT)) + ends


def natural(number: str) -> int | None:
    return int(number) if number.isascii() and number.isdigit() and len(number) < 20 else None
