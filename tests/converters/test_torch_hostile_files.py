"""PyTorch files that are damaged, or written by hand to do harm: opcode by opcode where need be."""

import contextlib
import copy
import io
import os
import pickle
import random
import time
import tracemalloc
import zipfile
from collections import Counter, OrderedDict
from itertools import product

import jaxtyping
import numpy as np
import pytest
from test_torch_files import FORMATS, SCRIPT_WARNINGS, assert_same, checkpoint, network, refused, saved, torch

from converters.readers.torch_files import LEGACY_MAGIC, LEGACY_VERSION, read_torch
from converters.readers.torch_objects import Placeholder
from deeplab_jax.errors import InputError


@pytest.fixture(autouse=True)
def unchecked(monkeypatch):
    """Run-time checks of annotations off: they take most of the time, and what they raise would pass for damage."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


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


@contextlib.contextmanager
def little_memory():
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


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
    for size in [*range(40), len(content) - 1, *(generator.randrange(40, len(content)) for _ in range(150))]:
        path.write_bytes(content[:size])
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
    with little_memory():
        assert f"is damaged: {reason}" in refused(path)


def proto(*opcodes):
    return b"\x80\x04" + b"".join(opcodes) + b"."


def size(number, width=8):
    return number.to_bytes(width, "little")


CLASS = b"cbuiltins\nset\n"
COLLIDING = [pickle.LONG1 + b"\x0a" + size(i * (2**61 - 1), 10) + b"N" for i in range(30_000)]  # of one hash
NAMESPACE = b"cargparse\nNamespace\n)\x81"
PAIR = b"}(X\x01\x00\x00\x00ah\x00X\x01\x00\x00\x00bh\x00ubq\x00"  # twice the one before
HOSTILE = {
    "exponential": proto(b"]", b"2\x86" * 40),
    "exponential dictionaries": proto(b"}q\x00", b"}(U\x01ah\x00U\x01bh\x00uq\x00" * 40),
    "exponential key": proto(b"})", b"2\x86" * 40, b"Ns"),
    "cycle": proto(b"}q\x00X\x01\x00\x00\x00ah\x00s"),
    "deep tuples": proto(b")", b"\x85" * 10**5),
    "deep dictionaries": proto(b"}" + b"K\x00}" * 30_000, b"s" * 30_000),
    "deep keys": proto(b"}", b")", b"\x85" * 10**5, b"Ns"),
    "unhashable key": proto(b"}]Ns"),
    "namespace in itself": proto(NAMESPACE, b"q\x00}X\x01\x00\x00\x00ah\x00sb"),
    "deep namespaces": proto((NAMESPACE + b"}X\x01\x00\x00\x00a") * 1000, b"N", b"sb" * 1000),
    "exponential namespaces": proto(NAMESPACE, b"q\x00", b"".join(NAMESPACE + PAIR for _ in range(40))),
    "tensor as key": proto(b"}ctorch._utils\n_rebuild_tensor\n(NNNNtRNs"),
    "colliding keys": proto(b"}(", *COLLIDING, b"u"),
    "colliding pairs": proto(b"ccollections\nOrderedDict\n](", b"\x86".join(COLLIDING), b"\x86e\x85R"),
    "long name": proto(b"c" + b"a" * 10**6 + b"\nb\n"),
    "name of two lines": proto(b"\x8c\x03a\nb\x8c\x03c\rd\x93"),
    "EXT1": proto(b"\x82\x01"),
    "INST": proto(b"(ios\nsystem\n"),
    "OBJ": proto(b"(", CLASS, b"o"),
    "a global changed": proto(CLASS, b"}X\x04\x00\x00\x00callNsb]R"),
    "a number called": proto(b"K\x01)R"),
    "a list changed by BUILD and called": proto(b"]}X\x08\x00\x00\x00__call__Nsb)R"),
    "setitem of a text": proto(b"X\x01\x00\x00\x00aNNs"),
    "nothing": proto(),
    "unknown opcode": proto(b"\xff"),
    "storage without type": proto(b"(X\x07\x00\x00\x00storageNNNNtQ"),
    "storage that is no tuple": proto(b"NQ"),
    "not decodable": proto(b"U\x01\xff"),
    "scripted class": proto(b"c__torch__\nNet\n)\x81}b"),
}
GREEDY = {  # sizes that are not there
    "BINBYTES8": proto(b"\x8e", size(2**62)),
    "BINUNICODE8": proto(b"\x8d", size(2**62)),
    "BYTEARRAY8": proto(b"\x96", size(2**40)),
    "LONG4": proto(b"\x8b", size(2**31 - 1, 4)),
    "FRAME": proto(b"\x95", size(2**62)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused_at_once(tmp_path, name):
    assert_refused(archive(tmp_path / "hostile.pth", HOSTILE[name]))


@pytest.mark.parametrize("name", ["cycle", "a number called", "unknown opcode"])
def test_hostile_pickles_in_the_legacy_format(tmp_path, name):
    assert_refused(legacy(tmp_path / "hostile.pth", HOSTILE[name]))


@pytest.mark.parametrize("write", [archive, legacy])
@pytest.mark.parametrize("name", GREEDY)
def test_a_declared_size_reserves_no_memory(tmp_path, name, write):
    path = write(tmp_path / "size.pth", GREEDY[name])
    with little_memory():
        assert_refused(path)


def test_a_huge_memo_index_reserves_no_memory(tmp_path):
    path = archive(tmp_path / "memo.pth", proto(b"]r", size(2**32 - 1, 4), b"0j", size(2**32 - 1, 4)))
    with little_memory():
        assert read_torch(path) == []


def numpy_array(shape, code=b"f8", data=b"C\x08" + bytes(8), order=b"<"):
    """`_reconstruct`, then its state by BUILD: version, shape, type, order of axes and bytes."""
    kind = b"cnumpy\ndtype\n(X\x02\x00\x00\x00" + code + b"tR(K\x03X\x01\x00\x00\x00" + order + b"NNNK\x00K\x00K\x00tb"
    return b"cnumpy._core.multiarray\n_reconstruct\n)R(K\x01" + shape + kind + b"\x89" + data + b"tb"


@pytest.mark.parametrize(
    "opcodes",
    [
        numpy_array(b"K\x02\x85"),
        numpy_array(b"(" + b"\x8a\xff" + b"\x7f" * 255 + b"\x8a\xff" + b"\x7f" * 255 + b"t"),
        numpy_array(b"(" + b"K\x01" * 100_000 + b"t"),
        numpy_array(b"\x8a\x01\xff\x85"),
        numpy_array(b"K\x01\x85", code=b"O8"),
        numpy_array(b"K\x01\x85", order=b">"),
        numpy_array(b"N"),
        numpy_array(b"K\x01\x85", data=b"N"),
        b"cnumpy._core.multiarray\nscalar\n)R",
        b"c_codecs\nencode\nX\x10\x27\x00\x00" + b"a" * 10_000 + b"X\x06\x00\x00\x00latin1\x86R",
        b"comegaconf.dictconfig\nDictConfig\n)\x81q\x00}X\x07\x00\x00\x00_parenth\x00sb",
        b"cargparse\nNamespace\n)\x81]b",
        b"c_operator\ngetitem\n)R",
    ],
)
def test_impossible_arrays_and_objects_stand_for_nothing(tmp_path, opcodes):
    path = archive(tmp_path / "odd.pth", proto(opcodes))
    start = time.perf_counter()
    assert type(read_torch(path)) is Placeholder
    assert time.perf_counter() - start < 2


def test_a_small_array_written_by_hand_is_read(tmp_path):
    """So that the ones above fail for what they say."""
    path = archive(tmp_path / "array.pth", proto(numpy_array(b"K\x01\x85")))
    np.testing.assert_array_equal(read_torch(path), np.zeros(1))


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


MODULE = b"c__torch__\nNet\n)\x81"
DOUBLED = [b"X\x01\x00\x00\x00ah%cX\x01\x00\x00\x00bh%cubq%c" % (i, i, i + 1) for i in range(40)]
SCRIPTS = {
    "cycle": (MODULE + b"q\x00}(X\x01\x00\x00\x00ah\x00ub", "too deep a nest"),
    "deep": ((MODULE + b"}(X\x01\x00\x00\x00a") * 1000 + b"N" + b"ub" * 1000, "too deep a nest"),
    "exponential": (MODULE + b"q\x00" + b"".join(MODULE + b"}(" + pair for pair in DOUBLED), "too many objects"),
    "state that is no dictionary": (MODULE + b"]b", "without weights"),
    "no state": (MODULE, "without weights"),
    "no module": (b"]", "holds no module"),
    "attribute without a name": (MODULE + b"}(NNub", "has no name"),
    "code": (b"cos\nsystem\n)\x81", "holds a pickled os.system"),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_hostile_torchscript(tmp_path, name):
    opcodes, reason = SCRIPTS[name]
    path = archive(tmp_path / "script.pt", proto(opcodes), {"code/__torch__.py": "raise SystemExit"})
    assert reason in refused(path, limit=5)
