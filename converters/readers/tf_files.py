"""Reads TensorFlow's weight files without TensorFlow. Weights are data: nothing in a file is ever executed.

Every offset, size and shape in a file is held against the file's real size before memory is taken for it.
"""

import math
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from converters.readers import leveldb
from converters.readers.tf_protobuf import (
    FLOATS,
    TYPES,
    Unsupported,
    read_nodes,
    read_shape,
    read_tensor,
    tensor_type,
    widened,
)
from deeplab_jax.errors import InputError
from deeplab_jax.protobuf import Malformed, Wire, fields, text

Arrays = dict[str, Shaped[np.ndarray, "..."]]  # of variables, by name, in TensorFlow's layouts

# The state of optimizers and averages that a training run leaves beside the variables.
TRAINING_STATE = re.compile(
    r".*/(Momentum|ExponentialMovingAverage|Adam(_1)?|RMSProp(_1)?|[^/]*_power)|(global_)?step|learning_rate|beta[12]_power",
    re.DOTALL,
)
AVERAGE = "/ExponentialMovingAverage"
VARIABLES = {"weights", "depthwise_weights", "biases", "gamma", "beta", "moving_mean", "moving_variance"}
CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")
MAX_RATE = 1024

# Far above what any DeepLab needs: they bound the time and the memory a crafted file can ask for.
MAX_INDEX_BYTES = 16 << 20
MAX_GRAPH_BYTES = 2 << 30  # Protocol Buffers' own limit
MAX_FILLED_BYTES = 64 << 20
MAX_NPZ_BYTES = 4 << 30
NPZ_BYTES_WITHOUT_RATIO = 64 << 20
MAX_NPZ_RATIO = 1000

INSTEAD = "name a checkpoint (such as model.ckpt-30000) or a frozen_inference_graph.pb"
OTHER_KINDS = {
    (b"<!doctype", b"<html", b"<?xml"): "is a web page, not weights; download the file itself",
    (b"version https://git-lfs",): "is a Git LFS pointer, not weights; fetch the file with: git lfs pull",
    (b"\x1f\x8b",): f"is compressed; unpack it (tar xzf) and {INSTEAD} in it",
    (b"model_checkpoint_path",): "only lists checkpoints; name one of them, such as model.ckpt-30000",
}


def read_tf(path: Path) -> Arrays:
    """The variables without the state of optimizers.

    The path is a checkpoint's prefix or one of its files, a frozen graph (`.pb`) or an `.npz` of variables.

    Raises:
        InputError: that names the file, why it cannot be used and what to do.
    """
    return read_with_ema(path)[0]


def read_with_ema(path: Path) -> tuple[Arrays, list[str]]:
    """What `read_tf` gives, and the names of moving averages of variables, which it leaves out."""
    result = _read_all(path)
    variables = {name: array for name, array in result.items() if not TRAINING_STATE.fullmatch(name)}
    if not variables:
        raise InputError(f"{path} holds no variables; {INSTEAD} with weights")
    return variables, [name for name in result if name.endswith(AVERAGE)]


def atrous_rates_in(path: Path) -> dict[str, tuple[int, int]]:
    """The atrous rates of every convolution in a frozen graph, of rows and columns, by the node's name.

    TensorFlow writes a rate as the node's `dilations`, or as the block size of a SpaceToBatchND before the node.
    """
    with _explained(path):
        nodes = {node.name: node for node in read_nodes(_graph(path))}
        rates = {}
        for node in nodes.values():
            if node.op not in CONVOLUTIONS:
                continue
            # Of the four dilations those of batch and channels are 1; they come first and last, or first and second.
            columns_last = len(node.dilations) == 4 and node.dilations[3] != 1
            pairs = [node.dilations[2:] if columns_last else node.dilations[1:3] or [1, 1]]
            before = nodes.get(node.inputs[0]) if node.inputs else None
            if before is not None and before.op == "SpaceToBatchND":
                block = nodes.get(before.inputs[1]) if len(before.inputs) > 1 else None
                constant = block.tensor if block is not None and block.op == "Const" else None
                pairs.append([] if constant is None else read_tensor(constant, room=64).ravel().tolist())
            if any(len(pair) != 2 or not all(1 <= rate <= MAX_RATE for rate in pair) for pair in pairs):
                raise InputError(f"{path}: {node.name!r} has no constant rates; {INSTEAD} of research/deeplab")
            rates[node.name] = (
                math.prod(int(rows) for rows, _ in pairs),
                math.prod(int(columns) for _, columns in pairs),
            )
    return rates


def _read_all(path: Path) -> Arrays:
    with _explained(path):
        if path.suffix == ".npz":
            variables = _read_npz(path)
        elif path.suffix == ".pb":
            variables = _read_graph(path)
        else:
            variables = _read_checkpoint(path)
    plain = {name.removesuffix(":0"): array for name, array in variables.items()}  # `tf.Variable.name` has the suffix
    if len(plain) != len(variables):
        raise InputError(f"{path} holds variables twice, with `:0` and without; keep one of them")
    return plain


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except Malformed as error:
        raise InputError(f"{path} is cut short, damaged or something else: {error}; download it again") from None
    except Unsupported as error:
        raise InputError(f"{path} {error}") from None
    except OSError as error:
        raise InputError(
            f"{error.filename or path} cannot be read: {error.strerror or error}; check the path and its permissions"
        ) from None


def _check_file(path: Path, limit: int) -> int:
    """The file's size. Raises InputError where it is absent, empty, too large or plainly of another kind."""
    if not path.is_file():
        raise InputError(f"{path} does not exist or is no file; {INSTEAD}")
    size = path.stat().st_size
    if not size > 0:
        raise InputError(f"{path} is empty; download it again")
    if not size <= limit:
        raise InputError(f"{path} has {size} bytes, more than such a file can need ({limit}); {INSTEAD}")
    with path.open("rb") as file:
        start = file.read(64).lstrip().lower()
    for starts, reason in OTHER_KINDS.items():
        if start.startswith(starts):
            raise InputError(f"{path} {reason}")
    return size


def _read_checkpoint(path: Path) -> Arrays:
    prefix = path.with_name(re.sub(r"\.(index|data-\d{5}-of-\d{5})$", "", path.name)) if path.name else path
    index = Path(f"{prefix}.index")
    if not index.is_file():
        if path.is_dir():
            kind = "SavedModel, which has no such variables" if (path / "saved_model.pb").exists() else "folder"
            raise InputError(f"{path} is a {kind}; {INSTEAD}")
        if path.suffix == ".meta":
            raise InputError(f"{path} holds a graph without weights; name the checkpoint {path.with_suffix('')}")
        if path == prefix and path.is_file():
            size = _check_file(path, limit=1 << 62)
            with path.open("rb") as file:
                file.seek(max(0, size - len(leveldb.MAGIC)))
                old = file.read() == leveldb.MAGIC
            if old:
                raise InputError(f"{path} is a checkpoint of the old V1 format; save it again with write_version V2")
            raise InputError(f"{path} is no TensorFlow weights file; {INSTEAD}")
        raise InputError(f"{index} does not exist; a checkpoint is PREFIX.index with PREFIX.data-*: {INSTEAD}")
    _check_file(index, MAX_INDEX_BYTES)
    with _explained(index):
        return _read_bundle(prefix, dict(leveldb.read_table(memoryview(index.read_bytes()))))


class _Entry(NamedTuple):
    """Where a variable's bytes are; the fields of a BundleEntryProto."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int


def _read_bundle(prefix: Path, table: dict[bytes, memoryview]) -> Arrays:
    header = {number: value for number, wire, value in fields(table.pop(b"", memoryview(b""))) if wire == Wire.VARINT}
    shards = header.get(1, 0)
    if not 1 <= shards <= 99999:
        raise Malformed(f"its header counts {shards} data files")
    if header.get(2, 0) != 0:
        raise InputError(f"{prefix}.index was written on a big-endian machine; save it on another one")
    files = [Path(f"{prefix}.data-{shard:05d}-of-{shards:05d}") for shard in range(shards)]
    for file in files:
        if not file.is_file():
            raise InputError(f"{file} does not exist; put it beside {prefix.name}.index")
    sizes = [file.stat().st_size for file in files]

    entries = {}
    for key, value in table.items():
        # The slices of a partitioned variable have keys of their own, which begin with a zero.
        if key.startswith(b"\0"):
            raise InputError(f"{prefix}.index has partitioned variables; save it without a partitioner")
        name = text(memoryview(key))
        if ".ATTRIBUTES/" in name or name == "_CHECKPOINTABLE_OBJECT_GRAPH":
            raise InputError(
                f"{prefix}.index is a TF2 object checkpoint (Keras), which research/deeplab does not write; {INSTEAD}"
            )
        entries[name] = entry = _entry(prefix, name, value)
        if entry.shard >= shards:
            raise Malformed(f"{name!r} is in data file {entry.shard} of {shards}")
        if not entry.offset + entry.size <= sizes[entry.shard]:
            raise InputError(
                f"{files[entry.shard]} is cut short: {name!r} ends at byte {entry.offset + entry.size} of "
                f"{sizes[entry.shard]}; download it again"
            )
    # Variables do not overlap, so together they are no larger than the files: nor is the memory they take.
    if sum(entry.size for entry in entries.values()) > sum(sizes):
        raise Malformed("its variables overlap")

    variables = {}
    for name, (dtype, shape, shard, offset, size) in entries.items():
        if dtype not in TYPES or (TRAINING_STATE.fullmatch(name) and not name.endswith(AVERAGE)):
            continue
        count, itemsize = math.prod(shape), np.dtype(TYPES[dtype]).itemsize
        if count * itemsize != size:
            raise Malformed(f"{name!r} of shape {shape} has {size} bytes instead of {count * itemsize}")
        values = np.fromfile(files[shard], TYPES[dtype], count, offset=offset)
        variables[name] = widened(values, dtype).reshape(shape)
    return variables


def _entry(prefix: Path, name: str, message: memoryview) -> _Entry:
    numbers, shape = {}, ()
    for field in fields(message):
        match field:
            case 2, Wire.BYTES, value:
                shape = read_shape(value)
            case 7, Wire.BYTES, _:
                raise InputError(f"{prefix}.index: {name!r} is partitioned; save the checkpoint without a partitioner")
            case number, Wire.VARINT, value:
                numbers[number] = value
    return _Entry(numbers.get(1, 0), shape, numbers.get(3, 0), numbers.get(4, 0), numbers.get(5, 0))


def _graph(path: Path) -> memoryview:
    _check_file(path, MAX_GRAPH_BYTES)
    return memoryview(path.read_bytes())


def _read_graph(path: Path) -> Arrays:
    variables, room = {}, MAX_FILLED_BYTES
    for node in read_nodes(_graph(path)):
        if node.op == "Const" and node.name.rpartition("/")[2] in VARIABLES and tensor_type(node.tensor) in FLOATS:
            variables[node.name] = array = read_tensor(node.tensor, room)
            room -= max(0, array.nbytes - len(node.tensor))
    if not variables:
        raise InputError(f"{path} is a graph without the constants of variables; freeze it, or {INSTEAD}")
    return variables


def _read_npz(path: Path) -> Arrays:
    file_size = _check_file(path, limit=1 << 62)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if not (
                total <= MAX_NPZ_BYTES and (total <= NPZ_BYTES_WITHOUT_RATIO or total <= MAX_NPZ_RATIO * file_size)
            ):
                raise InputError(
                    f"{path} unpacks to {total} bytes, which no DeepLab needs; save its variables alone with "
                    "numpy.savez"
                )
            arrays = {}
            for member in members:
                if _is_numeric(path, archive, member):
                    with archive.open(member) as file:
                        arrays[member.filename.removesuffix(".npy")] = np.lib.format.read_array(
                            file, allow_pickle=False
                        )
            return arrays
    except (InputError, Malformed):
        raise
    except Exception as error:  # zipfile, its codecs and NumPy's header parser raise a dozen kinds for a damaged file
        raise Malformed(f"it is no readable .npz ({type(error).__name__})") from None


def _is_numeric(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    """Whether an array is numeric; its header is checked, as NumPy takes memory for the shape before it reads on."""
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with archive.open(member) as file:
        shape, _, dtype = read[np.lib.format.read_magic(file)](file)
    if dtype.hasobject:
        raise InputError(f"{path}: {member.filename!r} holds pickled objects, which are never run; save arrays")
    if len(shape) > 8 or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > member.file_size:
        raise Malformed(f"{member.filename!r} of shape {shape} is larger than the file holds")
    return dtype.kind in "fiu"
