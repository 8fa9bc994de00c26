"""TensorFlow's tensors and graphs, which are messages of Protocol Buffers.

Nothing here recurses, and no size is trusted.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Num

from deeplab_jax.protobuf import Malformed, Wire, fields, text, varints

# TensorFlow's numbers of the numeric types; files are little-endian. NumPy has no bfloat16: it is widened to float32.
BFLOAT16 = 14
TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 9: "<i8", BFLOAT16: "<u2", 17: "<u2", 19: "<f2"}
TYPES |= {22: "<u4", 23: "<u8"}
FLOATS = (1, 2, BFLOAT16, 19)
# Where a TensorProto lists its values when it does not hold them as raw bytes; integers and halves come as varints.
VALUE_FIELDS = {1: 5, 2: 6, 3: 7, 9: 10, BFLOAT16: 13, 19: 13}
VARINT_VALUES = (3, 9, BFLOAT16, 19)
MAX_NODES = 1 << 17  # far above any DeepLab's: it bounds the memory a crafted file can ask for


class Unsupported(ValueError):
    """Bytes in a form that is not read here; the message, which follows the file's name, says what to give instead."""


def tensor_type(message: memoryview) -> int:
    return next((value for number, wire, value in fields(message) if (number, wire) == (1, Wire.VARINT)), 0)


def read_tensor(message: memoryview, room: int) -> Num[np.ndarray, "..."]:
    """The array of a TensorProto, whose last value stands for all after it: at most `room` bytes larger than that."""
    dtype, shape, raw = tensor_type(message), (), bytearray()
    if dtype not in VALUE_FIELDS:
        raise Malformed(f"a constant has the unexpected type {dtype}")
    for field in fields(message):
        match field:
            case 2, Wire.BYTES, value:
                shape = read_shape(value)
            case 4, Wire.BYTES, value:
                raw = bytearray(value)
    count, itemsize = math.prod(shape), np.dtype(TYPES[dtype]).itemsize
    size = count * itemsize
    if size > len(message) + room:
        raise Malformed(f"a constant of shape {shape} is larger than the file holds")
    if not raw:
        for number, wire, value in fields(message):
            if number != VALUE_FIELDS[dtype]:
                continue
            if dtype in VARINT_VALUES:
                for item in [value] if isinstance(value, int) else varints(value):
                    raw += (item % (1 << 8 * itemsize)).to_bytes(itemsize, "little")
            elif wire != Wire.VARINT:
                raw += value
        if len(raw) % itemsize == 0 and len(raw) < size:
            raw += (raw[-itemsize:] or bytes(itemsize)) * (count - len(raw) // itemsize)
    if len(raw) != size:
        raise Malformed(f"a constant of shape {shape} has {len(raw)} bytes instead of {size}")
    return widened(np.frombuffer(raw, TYPES[dtype]), dtype).reshape(shape)


def read_shape(message: memoryview) -> tuple[int, ...]:
    """A TensorShapeProto."""
    shape = []
    for field in fields(message):
        match field:
            case 2, Wire.BYTES, dimension:
                sizes = [value for number, wire, value in fields(dimension) if (number, wire) == (1, Wire.VARINT)]
                shape.append(sizes[-1] if sizes else 0)
            case 3, Wire.VARINT, unknown if unknown:
                raise Malformed("a shape is unknown")
    # A negative size reads as a huge one. Zeros must not hide sizes that NumPy cannot multiply.
    if len(shape) > 8 or math.prod(max(size, 1) for size in shape) >= 1 << 40:
        raise Malformed("a shape is negative or larger than any variable's")
    return tuple(shape)


def widened(values: Num[np.ndarray, "n"], dtype: int) -> Num[np.ndarray, "n"]:
    return (values.astype(np.uint32) << 16).view(np.float32) if dtype == BFLOAT16 else values


class Node(NamedTuple):
    """What is needed of a NodeDef: its first two inputs, and the attributes `value` and `dilations`."""

    name: str
    op: str
    inputs: list[str]
    tensor: memoryview
    dilations: list[int]


def read_nodes(graph: memoryview) -> Iterator[Node]:
    """The nodes of a GraphDef, no two of one name."""
    names = set()
    for field in fields(graph):
        match field:
            case 1, Wire.BYTES, message:
                node = _node(message)
                if node.name in names or len(names) >= MAX_NODES:
                    raise Malformed(f"the graph has a second node {node.name!r}, or too many")
                names.add(node.name)
                yield node
            case 1, Wire.VARINT, _:
                raise Unsupported("is a SavedModel; name a checkpoint or a frozen graph")


def _node(message: memoryview) -> Node:
    name, op, inputs, attributes = "", "", [], {}
    for field in fields(message):
        match field:
            case 1, Wire.BYTES, value:
                name = text(value)
            case 2, Wire.BYTES, value:
                op = text(value)
            case 3, Wire.BYTES, value if len(inputs) < 2:
                inputs.append(text(value).partition(":")[0])
            case 5, Wire.BYTES, value:
                pair = {number: part for number, wire, part in fields(value) if wire == Wire.BYTES}
                if pair.get(1) in (b"value", b"dilations"):
                    attributes[bytes(pair[1])] = pair.get(2, memoryview(b""))
    tensor, integers = (_submessage(attributes.get(key), number) for key, number in ((b"value", 8), (b"dilations", 1)))
    return Node(name, op, inputs, tensor, _int_list(integers))


def _submessage(message: memoryview | None, number: int) -> memoryview:
    result = [value for n, wire, value in fields(message or memoryview(b"")) if (n, wire) == (number, Wire.BYTES)]
    return result[-1] if result else memoryview(b"")


def _int_list(message: memoryview) -> list[int]:
    """The integers of an attribute's ListValue."""
    numbers = []
    for field in fields(message):
        match field:
            case 3, Wire.VARINT, value:
                numbers.append(value)
            case 3, Wire.BYTES, value:
                numbers.extend(varints(value))
    return numbers
