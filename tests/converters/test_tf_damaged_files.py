"""TensorFlow files that are cut or changed anywhere give a result or the error, and nothing else."""

import contextlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from converters.readers import leveldb
from converters.readers.tf_files import atrous_rates_in, read_tf
from deeplab_jax.errors import InputError
from helpers.memory import little_memory
from helpers.tf_files import CHECKPOINT, FROZEN, block_of, random_graph, random_variables, table, write_bundle


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
    with little_memory(200 << 20):
        for block in spoiled(block_of(entries), count=200):
            index.write_bytes(table(block))
            read += readable(index)
    assert 0 < read < 200


@pytest.mark.slow
def test_changed_bytes_in_a_graph(tmp_path, unchecked):
    path = tmp_path / "graph.pb"
    read = 0
    with little_memory(200 << 20):
        for content in spoiled(random_graph(), count=200):
            path.write_bytes(content)
            read += readable(path)
    assert 0 < read < 200


@pytest.mark.slow
def test_changed_bytes_in_an_npz(tmp_path, unchecked):
    path = tmp_path / "variables.npz"
    np.savez_compressed(path, **random_variables(10))
    with little_memory(200 << 20):
        for content in spoiled(path.read_bytes(), count=150):
            path.write_bytes(content)
            readable(path)


def test_random_bytes(tmp_path, unchecked):
    rng = np.random.default_rng(8)
    for suffix in ("pb", "npz", "index", "ckpt"):
        for _ in range(50):
            (tmp_path / f"noise.{suffix}").write_bytes(rng.bytes(int(rng.integers(1, 400))))
            readable(tmp_path / f"noise.{suffix}")
