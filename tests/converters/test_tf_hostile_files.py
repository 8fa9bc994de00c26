"""TensorFlow files that are damaged, are something else or lie about their sizes are refused in one line."""

import contextlib
import os
import shutil
import struct
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
from test_tf_files import (
    CHECKPOINT,
    FROZEN,
    STRING,
    block_of,
    constant,
    entry,
    field,
    node,
    packed_floats,
    random_graph,
    random_variables,
    table,
    tensor,
    write_bundle,
    write_index,
)

from converters.readers import leveldb
from converters.readers.tf_files import atrous_rates_in, read_tf
from deeplab_jax.errors import InputError


@pytest.fixture
def unchecked(monkeypatch):
    """Run-time checks of annotations off: per number in thousands of files they would take minutes."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@contextlib.contextmanager
def little_memory():
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 200 << 20
    finally:
        tracemalloc.stop()


def refused(path: Path, names: Path | None = None) -> str:
    """The one line that refuses the file and begins with the path of the file at fault."""
    with pytest.raises(InputError) as error:
        read_tf(path)
    message = str(error.value)
    assert message.startswith(str(names or path))
    assert "\n" not in message
    return message


def test_other_kinds_of_files(tmp_path):
    write_bundle(tmp_path / "good", random_variables(5))
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "good.index")
    assert "tar xzf" in refused(tmp_path / "model.tar.gz")
    for suffix in ("ckpt", "pb", "npz", "index"):
        file = tmp_path / f"page.{suffix}"
        file.write_bytes(b"\n <!DOCTYPE html><html>Not found</html>")
        assert "web page" in refused(file)
        file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid")
        assert "git lfs pull" in refused(file)
        file.write_bytes(b"")
        assert "is empty" in refused(file)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "good"')
    assert "name one of them" in refused(tmp_path / "checkpoint")
    (tmp_path / "old.ckpt").write_bytes(table(block_of({b"": b""})))
    assert "old V1 format" in refused(tmp_path / "old.ckpt")
    (tmp_path / "notes.txt").write_text("notes")
    assert "no TensorFlow weights file" in refused(tmp_path / "notes.txt")
    assert f"name the checkpoint {tmp_path / 'model.ckpt-5'}" in refused(tmp_path / "model.ckpt-5.meta")
    assert "is a folder" in refused(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(field(1, 1) + field(2, b""))
    assert "SavedModel" in refused(tmp_path)
    assert "SavedModel" in refused(tmp_path / "saved_model.pb")
    (tmp_path / "graph.pb").write_bytes(node("a/weights", "VariableV2"))
    assert "freeze it" in refused(tmp_path / "graph.pb")
    write_bundle(tmp_path / "steps", {"global_step": np.array(1)})
    assert "holds no variables" in refused(tmp_path / "steps")


def test_absent_files(tmp_path):
    prefix = tmp_path / "model.ckpt-9"
    assert f"{prefix}.index does not exist" in refused(prefix)
    assert "does not exist" in refused(tmp_path / "graph.pb")
    assert "does not exist" in refused(tmp_path / "variables.npz")
    write_bundle(prefix, random_variables(9), shards=3)
    absent = Path(f"{prefix}.data-00001-of-00003")
    absent.unlink()
    assert "does not exist" in refused(prefix, names=absent)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"a": entry(1, (2,), 0, 8, more=field(7, b""))}, "partitioned"),
        ({"\0a": entry(1, (2,), 0, 8)}, "partitioned"),
        ({"_CHECKPOINTABLE_OBJECT_GRAPH": entry(STRING, (), 0, 8)}, "TF2 object checkpoint"),
        ({"v/.ATTRIBUTES/VARIABLE_VALUE": entry(1, (2,), 0, 8)}, "TF2 object checkpoint"),
        ({"a": entry(1, (3,), 0, 8)}, "8 bytes instead of 12"),
        ({"a": entry(1, (-2,), 0, 8)}, "negative"),
        ({"a": entry(1, (2,) * 9, 0, 8)}, "larger than any"),
        ({"a": entry(1, (0, 1 << 62, 1 << 62), 0, 0)}, "larger than any"),
        ({"a": entry(1, (1 << 38,), 0, 1 << 40)}, "is cut short"),
        ({"a": entry(1, (2,), 4, 8)}, "is cut short"),
        ({"a": entry(1, (2,), -4, 8)}, "is cut short"),
        ({"a": entry(1, (2,), 0, 8, shard=1)}, "data file 1 of 1"),
        ({"a": entry(1, (2,), 0, 8), "b": entry(1, (2,), 0, 8)}, "overlap"),
        ({"a" * 1025: entry(1, (2,), 0, 8)}, "larger than what is there"),
        ({"a": b"\x08"}, "within a number"),
        ({"a": b"\x08" + b"\xff" * 10}, "does not end"),
        ({"a": b"\x08" + b"\xff" * 9 + b"\x7f"}, "exceeds 64 bits"),
        ({"a": b"\x0b"}, "wire type 3"),
        ({"a": field(2, b"")[:-1] + b"\x09"}, "claims 9 bytes where 0 are left"),
    ],
)
def test_index_that_lies(tmp_path, entries, reason):
    (tmp_path / "model.data-00000-of-00001").write_bytes(bytes(8))
    write_index(tmp_path / "model", entries)
    assert reason in refused(tmp_path / "model")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (table(block_of({b"": field(1, 1)}), compression=1), "snappy"),
        (b"\1" + table(block_of({b"": field(1, 1)}))[1:], "does not match its checksum"),
        (table(block_of({b"": field(1, 1)}))[:-1] + b"\0", "does not end as"),
        (table(block_of({b"": b""})), "counts 0 data files"),
        (table(block_of({b"": field(1, 1 << 40)})), "data files"),
        (table(block_of({b"": field(1, 1) + field(2, 1)})), "big-endian"),
        (table(block_of({b"": field(1, 1), b"b": b"", b"a": b""})), "not in order"),
        (table(block_of({b"": field(1, 1), b"\xff": b""})), "not UTF-8"),
        (table(struct.pack("<I", 0)), "no entries"),
        (table(b"\0\0\0\0" + struct.pack("<I", 1 << 31)), "no entries"),
        (table(b"\x05\1\1ab" + struct.pack("<II", 0, 1)), "larger than what is there"),
        (table(b"\0\1\x7fab" + struct.pack("<II", 0, 1)), "larger than what is there"),
        (bytes(40) + leveldb.MAGIC, "outside the file"),
        (leveldb.MAGIC, "does not end as"),
    ],
)
def test_table_that_lies(tmp_path, content, reason):
    (tmp_path / "model.data-00000-of-00001").write_bytes(bytes(8))
    (tmp_path / "model.index").write_bytes(content)
    assert reason in refused(tmp_path / "model")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (tensor(1, (1 << 30,), packed_floats(1)), "larger than the file holds"),
        (tensor(1, (1 << 20, 1 << 20), field(4, b"abcd")), "larger than"),
        (tensor(1, (-1,), packed_floats(1)), "negative"),
        (tensor(1, (3,), field(4, bytes(8))), "8 bytes instead of 12"),
        (tensor(1, (3,), packed_floats(1, 2, 3, 4)), "16 bytes instead of 12"),
        (tensor(1, (3,), field(5, b"abc")), "3 bytes instead of 12"),
        (field(1, 1) + field(2, field(3, 1)), "a shape is unknown"),
    ],
)
def test_constant_that_lies(tmp_path, message, reason):
    (tmp_path / "graph.pb").write_bytes(constant("a/gamma", message))
    assert reason in refused(tmp_path / "graph.pb")


def test_many_filled_constants_take_little_memory(tmp_path):
    full = tensor(1, (1 << 22,), packed_floats(1))
    (tmp_path / "graph.pb").write_bytes(b"".join(constant(f"{i}/gamma", full) for i in range(1000)))
    with little_memory():
        assert "larger than the file holds" in refused(tmp_path / "graph.pb")


def test_nodes_of_one_name(tmp_path):
    (tmp_path / "graph.pb").write_bytes(constant("a/gamma", tensor(1, (), b"")) * 2)
    assert "a second node 'a/gamma'" in refused(tmp_path / "graph.pb")


class Payload:
    """Pickles to a call that would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_npz_that_lies(tmp_path):
    np.savez(tmp_path / "code.npz", weights=np.array([Payload(tmp_path / "ran")], object))
    assert "never run" in refused(tmp_path / "code.npz")
    assert not (tmp_path / "ran").exists()

    np.savez_compressed(tmp_path / "bomb.npz", weights=np.zeros(80 << 20, np.uint8))
    assert "unpacks to 83886" in refused(tmp_path / "bomb.npz")

    with zipfile.ZipFile(tmp_path / "shape.npz", "w") as archive:
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    assert "larger than the file holds" in refused(tmp_path / "shape.npz")

    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("a.npy", b"notes")
    assert "no readable .npz" in refused(tmp_path / "text.npz")
    (tmp_path / "notes.npz").write_text("notes")
    assert "no readable .npz" in refused(tmp_path / "notes.npz")


def readable(path: Path) -> bool:
    """Whether it is read; anything raised but an InputError fails the test."""
    if path.suffix == ".pb":
        with contextlib.suppress(InputError):
            atrous_rates_in(path)
    try:
        read_tf(path)
    except InputError:
        return False
    return True


@pytest.fixture
def copies(tmp_path, unchecked) -> Path:
    """The real files where they are here, ones written here where not: model.index, model.data-* and graph.pb."""
    if Path(f"{CHECKPOINT}.index").is_file():
        for suffix in (".index", ".data-00000-of-00001"):
            shutil.copyfile(f"{CHECKPOINT}{suffix}", tmp_path / f"model{suffix}")
    else:
        write_bundle(tmp_path / "model", random_variables())
    if FROZEN.is_file():
        shutil.copyfile(FROZEN, tmp_path / "graph.pb")
    else:
        (tmp_path / "graph.pb").write_bytes(random_graph())
    return tmp_path


# A graph that ends between two nodes is a sound one.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count", "sound"), [("model.index", 200, 0), ("model.data-00000-of-00001", 100, 0), ("graph.pb", 40, 4)]
)
def test_a_cut_file(copies, name, count, sound):
    path = copies / name
    sizes = np.random.default_rng(1).integers(0, path.stat().st_size, count)
    read = 0
    for size in sorted(sizes.tolist(), reverse=True):  # the longest first, as nothing has to be written then
        os.truncate(path, size)
        read += readable(path)
    assert read <= sound


def spoiled(content: bytes, count: int):
    rng = np.random.default_rng(4)
    for place, value in zip(rng.integers(0, len(content), count), rng.integers(1, 256, count), strict=True):
        changed = bytearray(content)
        changed[place] ^= value
        yield bytes(changed)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("model.index", 200), ("graph.pb", 10)])
def test_a_changed_byte_in_a_real_file(copies, name, count):
    path = copies / name
    for content in spoiled(path.read_bytes(), count):
        path.write_bytes(content)
        readable(path)


@pytest.mark.slow
def test_changed_bytes_in_an_index_under_a_right_checksum(tmp_path, unchecked):
    write_bundle(tmp_path / "model", random_variables(20))
    index = tmp_path / "model.index"
    entries = {key: bytes(value) for key, value in leveldb.read_table(memoryview(index.read_bytes()))}
    read = 0
    with little_memory():
        for block in spoiled(block_of(entries), count=200):
            index.write_bytes(table(block))
            read += readable(index)
    assert 0 < read < 200


@pytest.mark.slow
def test_changed_bytes_in_a_graph(tmp_path, unchecked):
    path = tmp_path / "graph.pb"
    read = 0
    with little_memory():
        for content in spoiled(random_graph(), count=200):
            path.write_bytes(content)
            read += readable(path)
    assert 0 < read < 200


@pytest.mark.slow
def test_changed_bytes_in_an_npz(tmp_path, unchecked):
    path = tmp_path / "variables.npz"
    np.savez_compressed(path, **random_variables(10))
    with little_memory():
        for content in spoiled(path.read_bytes(), count=150):
            path.write_bytes(content)
            readable(path)


def test_random_bytes(tmp_path, unchecked):
    rng = np.random.default_rng(8)
    for suffix in ("pb", "npz", "index", "ckpt"):
        for _ in range(50):
            (tmp_path / f"noise.{suffix}").write_bytes(rng.bytes(int(rng.integers(1, 400))))
            readable(tmp_path / f"noise.{suffix}")
