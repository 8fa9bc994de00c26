"""Protocol Buffers' wire format: messages as numbers and bytes.

Nothing here recurses, copies or trusts a size.
"""

from collections.abc import Iterator
from enum import IntEnum
from typing import Any


class Malformed(ValueError):
    """Bytes that are not what they should be; the reader of a file turns it into an InputError with the file's name."""


class Wire(IntEnum):
    VARINT = 0
    FIXED64 = 1
    BYTES = 2
    FIXED32 = 5


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """The unsigned number at a place, and the place after it. A negative one reads as its two's complement."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise Malformed("it ends within a number")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            break
    else:
        raise Malformed("a number does not end")
    if value >> 64:
        raise Malformed("a number exceeds 64 bits")
    return value, at


def varints(data: memoryview) -> Iterator[int]:
    """The numbers of a packed field."""
    at = 0
    while at < len(data):
        value, at = varint(data, at)
        yield value


def fields(message: memoryview) -> Iterator[tuple[int, int, Any]]:
    """(field number, wire type, value) in the file's order: an int for a varint, the bytes for all else.

    A field of another wire type than expected is an unknown one to Protocol Buffers, so callers match on both.
    """
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        wire = tag & 7
        if wire == Wire.VARINT:
            value, at = varint(message, at)
        else:
            if wire == Wire.BYTES:
                size, at = varint(message, at)
            elif wire in (Wire.FIXED32, Wire.FIXED64):
                size = 4 if wire == Wire.FIXED32 else 8
            else:
                raise Malformed(f"a field has the unused wire type {wire}")
            if size > len(message) - at:
                raise Malformed(f"a field claims {size} bytes where {len(message) - at} are left")
            value, at = message[at : at + size], at + size
        yield tag >> 3, wire, value


def text(value: memoryview) -> str:
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError:
        raise Malformed("a name is not UTF-8") from None
