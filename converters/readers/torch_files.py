"""Reads PyTorch's weight files without PyTorch: a zip archive, TorchScript in one, or the older row of pickles."""

import io
import mmap
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from converters.readers.torch_objects import Placeholder as Placeholder  # part of what read_torch returns
from converters.readers.torch_objects import damage, plain, require
from converters.readers.torch_pickle import Resolver, Unpickler
from deeplab_jax.errors import InputError

MAX_PICKLE = 2**23  # bytes: names and shapes of 50,000 tensors. Every byte can cost 150 bytes of memory.
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001


def read_torch(path: Path) -> Any:
    """What a PyTorch file holds, with numpy arrays as tensors: the saved object, or the weights of a TorchScript model.

    The arrays are read-only views of the file, which must stay as it is while they are in use.

    Raises:
        InputError: that names the file and why it cannot be used.
    """
    try:
        if not path.is_file():
            raise InputError("does not exist or is no file; check its path")
        if not path.stat().st_size > 0:
            raise InputError("is empty; download or save it again")
        with path.open("rb") as file:
            return _read(file)
    except InputError as error:
        raise InputError(f"{path} {error}") from None
    except PermissionError:
        raise InputError(f"{path} cannot be opened; change who may read it") from None
    except Exception as error:  # damage can make the unpickler, zipfile and numpy fail in any way, MemoryError included
        raise InputError(f"{path} {damage(f'it cannot be read ({type(error).__name__})')}") from None


def _read(file: io.BufferedReader) -> Any:
    view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    start = bytes(view[:32])
    if start.startswith(b"PK\x03\x04"):
        return _read_zip(file, view)
    if pickle.LONG1 + b"\x0a" + LEGACY_MAGIC.to_bytes(10, "little") in start:
        return _read_legacy(view)
    if start[0] == pickle.PROTO[0]:
        raise InputError("is a plain pickle, which is never loaded; save with torch.save instead")
    begins = plain(start[:16].decode("latin-1"))
    raise InputError(f"is no PyTorch file (it begins with '{begins}'...); download it again")


def _read_zip(file: io.BufferedReader, view: memoryview) -> Any:
    """NAME/data.pkl is the object, NAME/data/KEY the bytes of a storage; TorchScript adds source code in NAME/code/."""
    records = _Records(file, view)
    roots = [name for name in records.entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(roots) != 1:
        raise InputError("is a zip archive without a data.pkl, so no PyTorch file; save model.state_dict()")
    root = roots[0].removesuffix("data.pkl")
    if f"{root}byteorder" in records.entries and records.read(f"{root}byteorder") != b"little":
        raise InputError("is big-endian; save it on a little-endian machine")
    pickled = records.read(roots[0])
    if not len(pickled) <= MAX_PICKLE:
        raise InputError(f"holds objects of over {MAX_PICKLE} bytes; save model.state_dict() alone")
    scripted = any(name.startswith(f"{root}code/") for name in records.entries)
    saved = Unpickler(io.BytesIO(pickled), scripted).load()
    resolver = Resolver(lambda key: records.read(f"{root}data/{key}"))
    if not scripted:
        return resolver.value(saved)
    weights = dict(resolver.weights(saved))
    if not len(weights):
        raise InputError("is a TorchScript archive without weights; save the model before it is frozen")
    return weights


class _Records:
    """Where the records of a zip archive are."""

    def __init__(self, file: io.BufferedReader, view: memoryview):
        with zipfile.ZipFile(file) as archive:
            entries, end = sorted(archive.infolist(), key=lambda entry: entry.header_offset), archive.start_dir
        self.entries = {entry.filename: entry for entry in entries}
        self.data: dict[str, memoryview] = {}
        self.checked: set[str] = set()
        for entry, limit in zip(entries, [entry.header_offset for entry in entries[1:]] + [end], strict=True):
            signature, name_size, extra_size = struct.unpack_from("<4s22xHH", view, entry.header_offset)
            start = entry.header_offset + 30 + name_size + extra_size
            stop = start + entry.compress_size
            # Records that share bytes, or are packed, could hold many times what the file does.
            require(signature == b"PK\x03\x04" and stop <= limit, "its records overlap")
            if entry.flag_bits & 1:
                raise InputError("is encrypted; decrypt it first")
            if entry.compress_type == zipfile.ZIP_STORED:
                self.data[entry.filename] = view[start:stop]
            elif not entry.filename.partition("/")[2].startswith("code/"):
                raise InputError("has compressed records, but torch stores them, so this is no weights file")
        require(len(self.entries) == len(entries), "two records share a name")

    def read(self, name: str) -> memoryview:
        require(name in self.data, f"the record {plain(name)} is missing")
        if name not in self.checked:
            # PyTorch can be told to compute no checksums, and then writes 0.
            fits = self.entries[name].CRC in (0, zlib.crc32(self.data[name]))
            require(fits, f"the record {plain(name)} fails its checksum")
            self.checked.add(name)
        return self.data[name]


def _read_legacy(view: memoryview) -> Any:
    """Five pickles (magic number, version, system, object, keys of storages), and then the bytes of each storage."""
    file = io.BytesIO(view[:MAX_PICKLE])
    magic, version, system = (Unpickler(file).load() for _ in range(3))
    require((magic, version) == (LEGACY_MAGIC, LEGACY_VERSION), "its version is unknown")
    unpickler = Unpickler(file)
    saved, keys = unpickler.load(), Unpickler(file).load()
    data: dict[str, memoryview] = {}
    resolver = Resolver(lambda key: data[key])
    if resolver.value(system)["little_endian"] is not True:
        raise InputError("is big-endian; save it on a little-endian machine")
    position = file.tell()
    for key in keys:
        start = position + 8
        numel = int.from_bytes(view[position:start], "little", signed=True)
        position = start + numel * unpickler.storages[key].dtype.itemsize
        require(start <= position <= len(view), "it ends early")
        data[key] = view[start:position]
    return resolver.value(saved)
