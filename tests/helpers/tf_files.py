"""TensorFlow's files, written by hand."""

import struct
from pathlib import Path

import numpy as np

from converters.readers import leveldb
from helpers.fixtures import SHARED

CHECKPOINT = SHARED / "weights" / "tf_deeplabv3_mnv2_voc" / "model.ckpt-30000"
FROZEN = SHARED / "weights" / "tf_frozen_mnv2_dm05_portrait" / "frozen_inference_graph.pb"
NUMBERS = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int64": 9, "bool": 10, "float16": 19, "uint32": 22}
BFLOAT16, STRING = 14, 7


def number(value: int) -> bytes:
    value %= 1 << 64
    groups = [value >> shift & 127 for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([group | 128 for group in groups[:-1]] + groups[-1:])


def field(key: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return number(key << 3) + number(value)
    return number(key << 3 | 2) + number(len(value)) + value


def shape_message(shape) -> bytes:
    return b"".join(field(2, field(1, size)) for size in shape)


def entry(dtype: int, shape, offset: int, size: int, shard: int = 0, more: bytes = b"") -> bytes:
    return field(1, dtype) + field(2, shape_message(shape)) + field(3, shard) + field(4, offset) + field(5, size) + more


def seal(block: bytes, compression: int = 0) -> bytes:
    block += bytes([compression])
    return block + struct.pack("<I", leveldb._masked_crc32c(memoryview(block)))


def block_of(entries: dict[bytes, bytes]) -> bytes:
    block, restarts, last = b"", [], b""
    for place, (key, value) in enumerate(entries.items()):
        if place % 16 == 0:
            restarts.append(len(block))
            last = b""
        shared = max(size for size in range(len(last) + 1) if key.startswith(last[:size]))
        block += number(shared) + number(len(key) - shared) + number(len(value)) + key[shared:] + value
        last = key
    return block + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def table(*blocks: bytes, compression: int = 0) -> bytes:
    """A table of data blocks; the names of the index do not matter but for their order."""
    content, handles = b"", {}
    for place, block in enumerate(blocks):
        handles[f"{place:04}".encode()] = number(len(content)) + number(len(block))
        content += seal(block, compression)
    index = block_of(handles)
    footer = number(0) + number(0) + number(len(content)) + number(len(index))
    return content + seal(index) + footer.ljust(40, b"\0") + leveldb.MAGIC


def write_index(prefix: Path, entries: dict[str, bytes], shards: int = 1, per_block: int = 40) -> None:
    items = sorted({b"": field(1, shards), **{name.encode(): value for name, value in entries.items()}}.items())
    blocks = [block_of(dict(items[start : start + per_block])) for start in range(0, len(items), per_block)]
    Path(f"{prefix}.index").write_bytes(table(*blocks))


def write_bundle(prefix: Path, variables: dict[str, np.ndarray], shards: int = 1) -> None:
    content, entries = [b""] * shards, {}
    for place, (name, array) in enumerate(variables.items()):
        shard = place % shards
        data = array.tobytes()
        entries[name] = entry(NUMBERS[array.dtype.name], array.shape, len(content[shard]), len(data), shard)
        content[shard] += data
    for shard, data in enumerate(content):
        Path(f"{prefix}.data-{shard:05d}-of-{shards:05d}").write_bytes(data)
    write_index(prefix, entries, shards)


def attribute(key: str, value: bytes) -> bytes:
    return field(5, field(1, key.encode()) + field(2, value))


def node(name: str, op: str, *inputs: str, attributes: bytes = b"") -> bytes:
    wired = b"".join(field(3, value.encode()) for value in inputs)
    return field(1, field(1, name.encode()) + field(2, op.encode()) + wired + attributes)


def constant(name: str, tensor: bytes) -> bytes:
    return node(name, "Const", attributes=attribute("dtype", field(6, 1)) + attribute("value", field(8, tensor)))


def tensor(dtype: int, shape, values: bytes) -> bytes:
    return field(1, dtype) + field(2, shape_message(shape)) + values


def raw(array: np.ndarray) -> bytes:
    return tensor(NUMBERS[array.dtype.name], array.shape, field(4, array.tobytes()))


def packed_floats(*values: float) -> bytes:
    return field(5, struct.pack(f"<{len(values)}f", *values))


def random_variables(count: int = 300) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    kinds = ["float32", "float32", "float32", "float16", "float64", "int32", "uint8", "uint32"]
    leaves = ["BatchNorm/gamma", "BatchNorm/moving_variance", "weights", "depthwise_weights"]
    return {
        f"net/block{i % 7}/unit_{i}/{leaves[i % 4]}": np.asarray(
            rng.uniform(0, 200, [(), (1,), (i,), (2, 0), (3, 3, 2, 4)][i % 5])
        ).astype(kinds[i % 8])
        for i in range(1, count)
    }


def random_graph() -> bytes:
    rng = np.random.default_rng(0)
    atrous = [
        constant("c/SpaceToBatchND/block_shape", tensor(3, (2,), field(7, 6))),
        node("c/SpaceToBatchND", "SpaceToBatchND", "c/input", "c/SpaceToBatchND/block_shape:0", "c/paddings"),
        node("c", "DepthwiseConv2dNative", "c/SpaceToBatchND:0", "c/depthwise_weights/read"),
        node("d", "Conv2D", "c", attributes=attribute("dilations", field(1, field(3, bytes([1, 4, 4, 1]))))),
        node("e", "Conv2D", "d", attributes=attribute("dilations", field(1, b"".join(field(3, 1) for _ in range(4))))),
        node("f", "Conv2D", "e", "c/SpaceToBatchND"),
    ]
    weights = [constant(f"net/{i}/weights", raw(rng.normal(size=(2, i)).astype(np.float32))) for i in range(10)]
    filled = [constant("net/gamma", tensor(1, (5,), packed_floats(1, 2)))]
    return b"".join(atrous + weights + filled)
