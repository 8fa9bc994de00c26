"""PyTorch's files: written as torch.save writes them, or by hand; and what is expected of a reader."""

import io
import pickle
import time
import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest

from converters.readers.torch_files import LEGACY_MAGIC, LEGACY_VERSION, read_torch
from deeplab_jax.errors import InputError

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'deeplab_jax[port]'")
SCRIPT_WARNINGS = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def saved(path, value, zipped=True, protocol=2):
    torch.save(value, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    return path


def assert_same(actual, expected):
    if isinstance(expected, torch.Tensor):
        assert type(actual) is np.ndarray
        assert actual.shape == tuple(expected.shape)
        if expected.dtype == torch.bfloat16:
            assert actual.dtype == ml_dtypes.bfloat16
            actual, expected = actual.view(np.int16), expected.detach().contiguous().view(torch.int16)
        expected = expected.detach().numpy()
        assert actual.dtype == expected.dtype
        assert np.array_equal(actual, expected)
        assert not actual.flags.writeable or not actual.size
    elif isinstance(expected, dict):
        assert type(actual) is dict
        assert list(actual) == list(expected)
        for key, value in expected.items():
            assert_same(actual[key], value)
    elif isinstance(expected, list | tuple):
        assert len(actual) == len(expected)
        assert isinstance(actual, list | tuple)
        for one, other in zip(actual, expected, strict=True):
            assert_same(one, other)
    else:
        assert type(actual) is type(expected)
        assert actual == expected


def refused(path, limit=1.0):
    """The message of the error, one short line that starts with the path; it may take so many seconds of CPU."""
    start = time.process_time()
    with pytest.raises(InputError) as error:
        read_torch(path)
    assert time.process_time() - start < limit
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert len(message) < len(str(path)) + 200
    return message


def network():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.BatchNorm2d(4),
        torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 1)),
    )
    model(torch.rand(2, 3, 8, 8))
    return model


def checkpoint():
    numbers = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    return {
        "epoch": 3,
        "big": 2**70,
        "loss": -0.5,
        "name": "naïve",
        "nothing": None,
        "flags": [True, False, (1, "two", [])],
        "size": torch.Size([1, 2]),
        3: {"four": {5: 6}},
        "state_dict": network().state_dict(),
        "half": numbers.half() / 7,
        "bfloat16": numbers.bfloat16() / 7,
        "double": numbers.double() / 7,
        "bytes": torch.arange(5, dtype=torch.uint8),
        "small": [torch.arange(-2, 2).to(kind) for kind in (torch.int8, torch.int16, torch.int32)],
        "bool": numbers > 7,
        "counter": torch.tensor(12345678901),
        "complex": torch.tensor([1 + 2j]),
        "transposed": numbers.T,
        "strided": numbers[1:, ::2],
        "view": numbers[2],
        "row": numbers.as_strided((1, 3), (100, 1), 4),
        "empty": torch.zeros(0),
        "empties": torch.zeros(3, 0, 2),
        "parameter": torch.nn.Parameter(torch.rand(3)),
    }


def archive(path, pickled, records=(), compression=zipfile.ZIP_STORED):
    """A zip file as torch.save writes it, of a pickle and of other records by name."""
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in {"data.pkl": pickled, **dict(records)}.items():
            file.writestr(f"archive/{name}", data)
    return path


def legacy(path, content, *storages, keys=()):
    head = [LEGACY_MAGIC, LEGACY_VERSION, {"little_endian": True}]
    pickles = [*(pickle.dumps(value, 2) for value in head), content, pickle.dumps(list(keys), 2)]
    path.write_bytes(b"".join([*pickles, *storages]))
    return path


class Storage:
    def __init__(self, numel, key="0"):
        self.id = ("storage", torch.FloatStorage, key, "cpu", numel)


class Call:
    """Pickles to a call of the function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def tensor(numel, offset, size, stride, key="0"):
    return Call(torch._utils._rebuild_tensor_v2, Storage(numel, key), offset, size, stride, False, OrderedDict())


def pickled(value):
    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            return item.id if isinstance(item, Storage) else None

    file = io.BytesIO()
    Pickler(file, 2).dump(value)
    return file.getvalue()


def assert_refused(path):
    message = refused(path, limit=5)
    assert any(reason in message for reason in ("is damaged: ", "which is never loaded", "too deep a nest"))


def proto(*opcodes):
    return b"\x80\x04" + b"".join(opcodes) + b"."


def size(number, width=8):
    return number.to_bytes(width, "little")
