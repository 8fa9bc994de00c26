"""TensorFlow files that are something else or lie about their sizes are refused in one line."""

import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from converters.readers import leveldb
from converters.readers.tf_files import read_tf
from deeplab_jax.errors import InputError
from helpers.memory import little_memory
from helpers.tf_files import (
    STRING,
    block_of,
    constant,
    entry,
    field,
    node,
    packed_floats,
    random_variables,
    table,
    tensor,
    write_bundle,
    write_index,
)


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
    with little_memory(200 << 20):
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
