"""Real TensorFlow files, and ones written here in a few lines, are read as what they hold."""

import struct
from pathlib import Path

import numpy as np
import pytest

from converters.readers import leveldb
from converters.readers.tf_files import atrous_rates_in, read_tf, read_with_ema
from deeplab_jax.errors import InputError
from deeplab_jax.protobuf import fields
from helpers.fixtures import SHARED
from helpers.tf_files import (
    BFLOAT16,
    CHECKPOINT,
    FROZEN,
    STRING,
    attribute,
    constant,
    entry,
    field,
    node,
    number,
    packed_floats,
    random_graph,
    random_variables,
    raw,
    tensor,
    write_bundle,
    write_index,
)

FACTS = SHARED / "facts" / "tf_reference"
needs_checkpoint = pytest.mark.skipif(not Path(f"{CHECKPOINT}.index").is_file(), reason=f"{CHECKPOINT} is not here")
needs_frozen = pytest.mark.skipif(not FROZEN.is_file(), reason=f"{FROZEN} is not here")
needs_facts = pytest.mark.skipif(not FACTS.is_dir(), reason=f"{FACTS} is not here")


def same(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        assert actual[name].dtype == array.dtype, name
        assert actual[name].shape == array.shape, name
        assert np.array_equal(actual[name], array), name


def facts(case: str) -> dict[str, tuple[int, ...]]:
    lines = (FACTS / f"{case}_variables.txt").read_text().splitlines()
    return {name: tuple(map(int, shape.split(","))) for name, shape in (line.split("\t") for line in lines)}


@needs_checkpoint
def test_real_checkpoint():
    variables = read_tf(CHECKPOINT)
    assert len(variables) == 272
    assert {array.dtype.name for array in variables.values()} == {"float32"}
    for suffix in (".index", ".data-00000-of-00001"):
        same(read_tf(Path(f"{CHECKPOINT}{suffix}")), variables)
    # The index holds the checksum of every variable: TensorFlow's own word on the values.
    index = memoryview(Path(f"{CHECKPOINT}.index").read_bytes())
    checksums = {
        key.decode(): {n: value for n, _, value in fields(message)}[6]
        for key, message in leveldb.read_table(index)
        if key and key != b"global_step"
    }
    assert checksums.keys() == variables.keys()
    for name, array in variables.items():
        if array.nbytes <= 4096:
            assert leveldb._masked_crc32c(memoryview(array.tobytes())) == int.from_bytes(checksums[name], "little")


@needs_checkpoint
@needs_facts
def test_real_checkpoint_has_the_variables_of_the_original_code():
    assert {name: array.shape for name, array in read_tf(CHECKPOINT).items()} == facts("mobilenet_v2_os8_129x129")


@needs_frozen
@needs_facts
def test_real_frozen_graph_has_the_variables_of_the_original_code():
    expected = facts("mobilenet_v2_dm05_os16_129x129")
    expected |= {"logits/semantic/weights": (1, 1, 256, 2), "logits/semantic/biases": (2,)}
    variables = read_tf(FROZEN)
    assert {name: array.shape for name, array in variables.items()} == expected
    assert all(np.isfinite(array).all() for array in variables.values())
    assert all(array.min() > 0 for name, array in variables.items() if name.endswith("moving_variance"))


@needs_frozen
def test_real_frozen_graph_has_the_rates_of_output_stride_8():
    rates = {name: rows for name, (rows, columns) in atrous_rates_in(FROZEN).items() if rows == columns > 1}
    blocks = {7: 2, 8: 2, 9: 2, 10: 2, 11: 2, 12: 2, 13: 2, 14: 4, 15: 4, 16: 4}
    assert rates == {f"MobilenetV2/expanded_conv_{i}/depthwise/depthwise": rate for i, rate in blocks.items()}


def test_checksum_is_crc32c():
    # The test vector of RFC 3720, masked as LevelDB does.
    assert leveldb._masked_crc32c(memoryview(bytes(32))) == ((0x8A9136AA >> 15 | 0x8A9136AA << 17) + 0xA282EAD8) % 2**32


@pytest.mark.parametrize("shards", [1, 3])
def test_bundle_round_trip(tmp_path, shards):
    variables = random_variables()
    write_bundle(tmp_path / "model.ckpt-7", variables, shards)
    same(read_tf(tmp_path / "model.ckpt-7"), variables)
    same(read_tf(tmp_path / f"model.ckpt-7.data-00000-of-{shards:05d}"), variables)


def test_bundle_leaves_out_text_and_training_state(tmp_path):
    kept = {name: np.ones(3, np.float32) for name in ("a/weights", "a/Momentum/weights", "power", "x/global_step")}
    state = {"global_step": np.array(3, np.int64), "beta1_power": np.float32(0.9), "a/flag": np.array(True)}
    for suffix in ("Momentum", "ExponentialMovingAverage", "Adam", "Adam_1", "RMSProp", "RMSProp_1", "beta2_power"):
        state[f"a/weights/{suffix}"] = np.ones(3, np.float32)
    write_bundle(tmp_path / "model", {**kept, **state})
    same(read_tf(tmp_path / "model"), kept)
    assert read_with_ema(tmp_path / "model")[1] == ["a/weights/ExponentialMovingAverage"]

    (tmp_path / "text.data-00000-of-00001").write_bytes(b"\0\0\x80?abc")
    write_index(tmp_path / "text", {"half": entry(BFLOAT16, (2,), 0, 4), "text": entry(STRING, (1,), 4, 3)})
    same(read_tf(tmp_path / "text"), {"half": np.array([0, 1], np.float32)})


def test_graph_round_trip(tmp_path):
    path = tmp_path / "frozen.pb"
    rng = np.random.default_rng(0)
    variables = {
        f"net/{i}/{leaf}": rng.normal(size=(2, i)).astype(dtype)
        for i, leaf in enumerate(["weights", "depthwise_weights", "biases", "gamma", "beta", "moving_mean"])
        for dtype in (np.float32, np.float16, np.float64)
    }
    others = [
        node("net/0/weights/read", "Identity", "net/0/weights"),
        constant("net/shape", raw(np.ones(3, np.float32))),
        constant("count/weights", raw(np.ones(3, np.int32))),
        node("other/weights", "VariableV2"),
    ]
    path.write_bytes(b"".join(others) + b"".join(constant(name, raw(array)) for name, array in variables.items()))
    same(read_tf(path), variables)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (tensor(1, (), packed_floats(2.5)), np.float32(2.5)),
        (tensor(1, (3,), packed_floats(1, 2, 3)), np.array([1, 2, 3], np.float32)),
        (tensor(1, (2, 2), packed_floats(1, 2)), np.array([[1, 2], [2, 2]], np.float32)),
        (tensor(1, (3,), b"".join(b"\x2d" + struct.pack("<f", v) for v in (4, 5))), np.array([4, 5, 5], np.float32)),
        (tensor(1, (2,), b""), np.zeros(2, np.float32)),
        (tensor(1, (0, 2), b""), np.zeros((0, 2), np.float32)),
        (tensor(2, (2,), field(6, struct.pack("<d", 0.1))), np.array([0.1, 0.1])),
        (tensor(19, (3,), field(13, number(0x3C00) + number(0xC000))), np.array([1, -2, -2], np.float16)),
        (tensor(19, (2,), field(13, 0x3C00) + field(13, 0)), np.array([1, 0], np.float16)),
        (tensor(BFLOAT16, (2,), field(13, 0x3F80)), np.ones(2, np.float32)),
        (tensor(BFLOAT16, (2,), field(4, b"\0\0\x80?")), np.array([0, 1], np.float32)),
    ],
)
def test_values_of_constants(tmp_path, message, expected):
    (tmp_path / "graph.pb").write_bytes(constant("a/gamma", message))
    same(read_tf(tmp_path / "graph.pb"), {"a/gamma": expected})


def test_atrous_rates(tmp_path):
    path = tmp_path / "graph.pb"
    path.write_bytes(random_graph())
    assert atrous_rates_in(path) == {"c": (6, 6), "d": (4, 4), "e": (1, 1), "f": (1, 1)}
    for dilations in ([1, 4, 2, 1], [1, 1, 4, 2]):
        path.write_bytes(node("d", "Conv2D", attributes=attribute("dilations", field(1, field(3, bytes(dilations))))))
        assert atrous_rates_in(path) == {"d": (4, 2)}
    unknown = node("s", "SpaceToBatchND", "x", "y") + node("d", "Conv2D", "s")
    zero = constant("y", tensor(3, (2,), field(7, 0))) + unknown
    for graph in (unknown, zero):
        path.write_bytes(graph)
        with pytest.raises(InputError, match="'d' has no constant rates"):
            atrous_rates_in(path)


def test_npz_of_variables_by_their_full_name(tmp_path):
    np.savez(tmp_path / "v.npz", **{"a/weights:0": np.ones(3, np.float32), "learning_rate:0": np.float32(0.1)})
    same(read_tf(tmp_path / "v.npz"), {"a/weights": np.ones(3, np.float32)})
    np.savez(tmp_path / "v.npz", **{"a/weights:0": np.ones(3, np.float32), "a/weights": np.zeros(3, np.float32)})
    with pytest.raises(InputError, match="holds variables twice"):
        read_tf(tmp_path / "v.npz")


def test_npz(tmp_path):
    variables = {f"{name}/weights": array for name, array in random_variables(30).items()}
    state = {"global_step": np.array(3), "a/Momentum": np.ones(2), "labels": np.array(["road", "sky"])}
    np.savez(tmp_path / "plain.npz", **variables, **state)
    np.savez_compressed(tmp_path / "small.npz", **variables, turned=np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    same(read_tf(tmp_path / "plain.npz"), variables)
    same(read_tf(tmp_path / "small.npz"), {**variables, "turned": np.arange(6.0).reshape(2, 3)})
