"""PyTorch files that are damaged, or written by hand to do harm: opcode by opcode where need be."""

import contextlib
import copy
import os
import pickle
import random
import time
import zipfile
from collections import Counter
from itertools import product

import numpy as np
import pytest

from converters.readers.torch_files import read_torch
from deeplab_jax.errors import InputError
from helpers.memory import little_memory
from helpers.torch_files import (
    FORMATS,
    SCRIPT_WARNINGS,
    Call,
    archive,
    assert_same,
    checkpoint,
    legacy,
    network,
    pickled,
    proto,
    refused,
    saved,
    size,
    tensor,
    torch,
)

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.mark.parametrize("form", ["zip", "legacy", "plain"])
@pytest.mark.parametrize(
    ("call", "text"), [(os.mkdir, "{}"), (os.system, "touch {}"), (exec, "open('{}', 'w')"), (eval, "open('{}', 'w')")]
)
def test_code_is_never_run(tmp_path, call, text, form):
    value = {"w": torch.ones(1), "x": Call(call, text.format(tmp_path / "ran"))}
    path = tmp_path / "code.pth"
    if form == "plain":
        path.write_bytes(pickle.dumps({"x": value["x"]}))
        assert "plain pickle" in refused(path)
    else:
        saved(path, value, form == "zip")
        assert "which is never loaded; save model.state_dict() and convert that" in refused(path)
    assert not (tmp_path / "ran").exists()


@FORMATS
def test_a_file_cut_anywhere_is_refused(tmp_path, zipped):
    content = saved(tmp_path / "whole.pth", network().state_dict(), zipped).read_bytes()
    generator = random.Random(0)
    path = tmp_path / "cut.pth"
    for length in [*range(40), len(content) - 1, *(generator.randrange(40, len(content)) for _ in range(150))]:
        path.write_bytes(content[:length])
        refused(path)


def spoiled(content, count, *places):
    """Copies with a few bytes changed, each in one of the ranges."""
    generator = random.Random(0)
    for _ in range(count):
        changed = bytearray(content)
        for _ in range(generator.choice([1, 1, 2, 8])):
            changed[generator.choice(generator.choice(places))] = generator.choice([255, generator.randrange(256)])
        yield bytes(changed)


@SCRIPT_WARNINGS
@pytest.mark.parametrize(("form", "count"), [("zip", 200), ("legacy", 100), ("script", 100), ("container", 200)])
def test_changed_bytes_give_a_result_or_the_error(tmp_path, form, count):
    path = tmp_path / "model.pt"
    if form == "script":
        torch.jit.save(torch.jit.script(network()), path)
    else:
        saved(path, checkpoint(), form != "legacy")
    content, records = path.read_bytes(), {}
    if form in ("zip", "script"):
        with zipfile.ZipFile(path) as file:
            records = {name.partition("/")[2]: file.read(name) for name in file.namelist()}
        content = records.pop("data.pkl")
    everywhere = range(len(content))
    # What describes the records of a zip archive is at its end.
    places = [everywhere, everywhere[len(content) * 3 // 4 :]] if form == "container" else [everywhere[:4000]]
    outcomes = Counter()
    for changed in spoiled(content, count, *places):
        if records:
            archive(path, changed, records)
        else:
            path.write_bytes(changed)
        start = time.process_time()
        try:
            read_torch(path)
            outcomes["read"] += 1
        except InputError:
            outcomes["refused"] += 1
        assert time.process_time() - start < 1
    assert min(outcomes["read"], outcomes["refused"]) > 5


def test_changed_compressed_encrypted_overlapping_and_foreign_records(tmp_path):
    path = saved(tmp_path / "weights.pth", {"w": torch.full((100,), 3.25)})
    content = bytearray(path.read_bytes())
    content[content.index(np.full(100, 3.25, np.float32).tobytes()) + 40] ^= 1
    path.write_bytes(content)
    assert "is damaged: the record weights/data/0 fails its checksum" in refused(path)

    path = archive(tmp_path / "bomb.pth", pickled({}), {"data/0": bytes(10**6)}, zipfile.ZIP_DEFLATED)
    assert "has compressed records" in refused(path)

    content = bytearray(archive(tmp_path / "locked.pth", pickled({})).read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.pth").write_bytes(content)
    assert "is encrypted" in refused(tmp_path / "locked.pth")

    path = archive(tmp_path / "overlap.pth", pickled({}), {"data/0": bytes(16)})
    with zipfile.ZipFile(path, "a") as file:
        again = copy.copy(file.getinfo("archive/data/0"))
        again.filename = "archive/data/1"
        file.filelist.append(again)
        file.writestr("archive/version", "3")
    assert "its records overlap" in refused(path)

    assert "is big-endian" in refused(archive(tmp_path / "big.pth", pickled({}), {"byteorder": "big"}))

    path = archive(tmp_path / "two.pth", pickled({}))
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("archive/data.pkl", pickled([]))
    assert "two records share a name" in refused(path)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (tensor(10**12, 0, (4,), (1,)), "the storage 0 ends early"),
        (tensor(5, 0, (4,), (1,)), "the storage 0 ends early"),
        (tensor(-1, 0, (4,), (1,)), "a storage is described wrongly"),
        (tensor(4, 0, (4,), (1,), "../../secret"), "the record archive/data/../../secret is missing"),
        (tensor(4, 0, (10**9, 10**9), (0, 0)), "a tensor is larger than its storage"),
        (tensor(4, 1, (4,), (1,)), "a tensor is larger than its storage"),
        (tensor(4, 0, (2, 2), (3, 1)), "a tensor is larger than its storage"),
        (tensor(4, -1, (4,), (1,)), "a shape is impossible"),
        (tensor(4, 0, (-4,), (1,)), "a shape is impossible"),
        (tensor(4, 3, (4,), (-1,)), "a shape is impossible"),
        (tensor(4, 0, (4.0,), (1,)), "a shape is impossible"),
        (tensor(4, 0, (2, 2), (1,)), "a shape is impossible"),
        (tensor(4, 0, (1,) * 65, (1,) * 65), "a shape is impossible"),
        (tensor(4, 0, (0, 2**62, 2**62), (1, 1, 1)), "it cannot be read"),
        (Call(torch._utils._rebuild_tensor_v2, None, 0, (4,), (1,)), "a tensor has no storage"),
        (Call(torch._utils._rebuild_tensor_v2), "it cannot be read"),
        (Call(torch._utils._rebuild_parameter), "it cannot be read"),
    ],
)
def test_impossible_tensors(tmp_path, value, reason):
    path = archive(tmp_path / "tensor.pth", pickled({"w": value}), {"data/0": bytes(16)})
    with little_memory(2**24):
        assert f"is damaged: {reason}" in refused(path)


def test_hostile_legacy_storages(tmp_path):
    path, content = tmp_path / "legacy.pth", pickled({"w": tensor(4, 0, (4,), (1,))})
    four = np.arange(4, dtype=np.float32)
    assert_same(read_torch(legacy(path, content, size(4), four.tobytes(), keys="0")), {"w": torch.from_numpy(four)})
    assert "it ends early" in refused(legacy(path, content, size(2**40), four.tobytes(), keys="0"))
    assert "it ends early" in refused(legacy(path, content, size(2**64 - 100), four.tobytes(), keys="0"))
    assert "it ends early" in refused(legacy(path, content, size(4)[:3], keys="0"))
    assert "the storage 0 ends early" in refused(legacy(path, content, size(3), four.tobytes(), keys="0"))
    assert "is damaged" in refused(legacy(path, content, size(4), four.tobytes(), keys="1"))
    assert "is damaged" in refused(legacy(path, content))


def test_a_hostile_file_leaves_nothing_behind(tmp_path):
    good = saved(tmp_path / "good.pth", network().state_dict())
    before = read_torch(good)
    state = b"}(X\x04\x00\x00\x00callNX\x05\x00\x00\x00dtypeNX\x08\x00\x00\x00__call__Nu"
    targets = b"collections\nOrderedDict", b"torch\nFloatStorage", b"torch._utils\n_rebuild_tensor_v2", b"torch\ndevice"
    for target, opcodes in product(targets, (state + b"b", b"NNs", b"Na", state + b"\x86b")):
        with contextlib.suppress(InputError):
            read_torch(archive(tmp_path / "hostile.pth", proto(b"c", target, b"\n", opcodes)))
    after = read_torch(good)
    assert list(before) == list(after)
    assert all(np.array_equal(before[name], after[name]) for name in before)
