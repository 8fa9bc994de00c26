"""Reads LevelDB's table format, in which TensorFlow writes the index of a checkpoint."""

import struct
from collections.abc import Iterator

from converters.readers.tf_protobuf import Unsupported
from deeplab_jax.protobuf import Malformed, varint

MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
FOOTER = 48
BLOCK_TRAILER = 5
# Far above what any DeepLab needs: they bound the memory a crafted file can ask for.
MAX_NAME_BYTES = 1024
MAX_ENTRIES = 1 << 17


def read_table(content: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The keys and values of a LevelDB table."""
    if len(content) < FOOTER or content[-8:] != MAGIC:
        raise Malformed("it does not end as the index of a checkpoint does")
    footer = content[-FOOTER:]
    _, at = _handle(footer, 0)
    index, _ = _handle(footer, at)
    end, last, count = 0, None, 0
    for _, handle in _block_entries(content, *index):
        (offset, size), _ = _handle(handle, 0)
        if offset < end:
            raise Malformed("its blocks overlap")
        end = offset + size
        for key, value in _block_entries(content, offset, size):
            count += 1
            if (last is not None and key <= last) or count > MAX_ENTRIES:
                raise Malformed("its names are not in order, or too many")
            last = key
            yield key, value


def _handle(data: memoryview, at: int) -> tuple[tuple[int, int], int]:
    offset, at = varint(data, at)
    size, at = varint(data, at)
    return (offset, size), at


def _block_entries(content: memoryview, offset: int, size: int) -> Iterator[tuple[bytes, memoryview]]:
    end = offset + size
    if size < 4 or end + BLOCK_TRAILER > len(content) - FOOTER:
        raise Malformed(f"a block of {size} bytes at {offset} is outside the file")
    compression, checksum = struct.unpack_from("<BI", content, end)
    if _masked_crc32c(content[offset : end + 1]) != checksum:
        raise Malformed(f"the block at {offset} does not match its checksum")
    if compression:
        raise Unsupported("has compressed blocks (snappy), which no tf.train.Saver writes; save it again with one")
    (restarts,) = struct.unpack_from("<I", content, end - 4)
    if 4 + 4 * restarts >= size:
        raise Malformed(f"the block at {offset} has no entries")
    entries = content[offset : end - 4 - 4 * restarts]
    at, key = 0, b""
    while at < len(entries):
        shared, at = varint(entries, at)
        fresh, at = varint(entries, at)
        length, at = varint(entries, at)
        if shared > len(key) or shared + fresh > MAX_NAME_BYTES or fresh + length > len(entries) - at:
            raise Malformed(f"an entry in the block at {offset} is larger than what is there")
        key = key[:shared] + bytes(entries[at : at + fresh])
        yield key, entries[at + fresh : at + fresh + length]
        at += fresh + length


def _crc32c_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


CRC32C = _crc32c_table()


def _masked_crc32c(data: memoryview) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC32C[(crc ^ byte) & 255] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
