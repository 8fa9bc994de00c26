"""ONNX files that pass, and crafted ones that are refused before they are loaded."""

import os
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deeplab_jax.errors import InputError
from deeplab_jax.package.onnx_check.file import check_onnx_file

SHAPE = (1, 3, 8, 8)
node = helper.make_node


def constant(name, values, dtype=np.float32):
    return numpy_helper.from_array(np.array(values, dtype), name)


def whole(name, values):
    return constant(name, values, np.int64)


def model(nodes, constants=(), shape=("b", 3, "h", "w"), opset=18, **fields):
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    graph = helper.make_graph(
        nodes, "graph", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], constants
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, **fields)


ADD = node("Add", ["x", "k"], ["y"])
GOOD = model([ADD], [constant("k", [1])])


def check(folder: Path, content: onnx.ModelProto | bytes) -> None:
    path = folder / "weights.onnx"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    check_onnx_file(path, SHAPE)


def test_whole_graphs_pass(onnx_package, tmp_path):
    check_onnx_file(onnx_package / "weights.onnx", SHAPE)
    check(tmp_path, GOOD)


def test_a_constant_whose_values_are_not_read_passes(tmp_path):
    listed = helper.make_tensor("k", TensorProto.INT32, [8], range(8))  # as varints, not as raw bytes
    nodes = [node("Constant", [], ["i"], value=listed), node("Cast", ["i"], ["k"], to=TensorProto.FLOAT), ADD]
    check(tmp_path, model(nodes))


@pytest.mark.parametrize("dynamic", [False, True])
def test_what_pytorch_exports_passes(v3plus, tmp_path, dynamic):
    """Shapes are computed inside the graph where its sides are free."""
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.onnx"
    axes = {"x": {0: "b", 2: "h", 3: "w"}} if dynamic else {"x": {0: "b"}}
    with warnings.catch_warnings(action="ignore"):  # of the exporter that most files in use are from
        torch.onnx.export(
            v3plus, torch.zeros(1, 3, 64, 64), str(path), dynamo=False, input_names=["x"], dynamic_axes=axes
        )
    check_onnx_file(path, (2, 3, 64, 96) if dynamic else (2, 3, 64, 64))


def tensor(dims, data=b"", kind=TensorProto.FLOAT, **fields):
    made = TensorProto(name="k", data_type=kind, dims=dims, **fields)
    if data is not None:
        made.raw_data = data
    return made


def doubled(times):
    nodes = [node("Concat", [f"c{i}"] * 2, [f"c{i + 1}"], axis=2) for i in range(times)]
    return [node("Identity", ["x"], ["c0"]), *nodes, node("ReduceMean", [f"c{times}"], ["y"])]


def endless_loop():
    values = [helper.make_tensor_value_info(n, t, s) for n, t, s in (("i", 7, []), ("c", 9, []), ("v", 1, None))]
    results = [helper.make_tensor_value_info(n, t, s) for n, t, s in (("c2", 9, []), ("v2", 1, None))]
    body = helper.make_graph([node("Identity", ["c"], ["c2"]), node("Identity", ["v"], ["v2"])], "b", values, results)
    return model([node("Loop", ["m", "t", "x"], ["y"], body=body)], [whole("m", 2**62), constant("t", True, np.bool_)])


def functions():
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("f", 1)]
    calls = [node("F", ["a"], ["b"], domain="f")]
    made = model([node("F", ["x"], ["y"], domain="f")])
    made.functions.append(helper.make_function("f", "F", ["a"], ["b"], calls, opsets))
    return made


def with_sparse():
    made = model([ADD])
    sparse = onnx.SparseTensorProto(dims=[4])
    sparse.values.CopyFrom(constant("k", [1.0]))
    sparse.indices.CopyFrom(whole("i", [2**33]))
    made.graph.sparse_initializer.append(sparse)
    return made


def of_version(ir=8, opset=18):
    made = model([ADD], [constant("k", [1])], opset=opset)
    made.ir_version = ir
    return made


W, MEAN = constant("w", np.ones((4, 3, 3, 2), np.float32)), node("ReduceMean", ["k"], ["y"])
HOSTILE = {
    "empty": (b"", "cannot be used"),
    "html": (b"<!doctype html><html></html>", "cannot be used"),
    "truncated": (GOOD.SerializeToString()[:-9], "claims .* bytes where"),
    "old": (of_version(ir=1), "IR version 3 and opset 7 or newer"),
    "no-opset": (of_version(opset=0), "IR version 3 and opset 7 or newer"),
    "weights-missing": (model([ADD], [tensor([4])]), r"'k' of shape \(4,\) are 0 values"),
    "weights-short": (model([ADD], [tensor([4], bytes(12))]), r"'k' of shape \(4,\) are 3 values"),
    "weights-long": (model([ADD], [tensor([1], bytes(64))]), r"'k' of shape \(1,\) are 16 values"),
    "weights-listed": (model([ADD], [tensor([2**30], None, float_data=[1.0])]), "are 1 values"),
    "weights-huge": (model([ADD], [tensor([2**32, 2**32])]), "have the shape"),
    "weights-overflow": (model([ADD], [tensor([2**62, 4, 0])]), "have the shape"),
    "weights-negative": (model([ADD], [tensor([-1, -1], bytes(4))]), "have the shape"),
    "weights-rank": (model([ADD], [tensor([1] * 30, bytes(4))]), "have the shape"),
    "weights-strings": (model([ADD], [tensor([1], None, 8, string_data=[b"x"])]), "have the type 8"),
    "weights-of-no-type": (model([ADD], [tensor([1], bytes(4), 99)]), "have the type 99"),
    "weights-twice": (model([ADD], [constant("k", [1])] * 2), "two weights have one name"),
    "sparse": (with_sparse(), "sparse weights"),
    "function-of-itself": (functions(), "functions"),
    "endless-loop": (endless_loop(), "'body' is a graph"),
    "custom-operator": (model([node("Foo", ["x"], ["y"], domain="evil")]), "'Foo' of 'evil'"),
    "unknown-operator": (model([node("Foo", ["x"], ["y"])]), "operator 'Foo'"),
    "random": (model([node("RandomNormal", [], ["y"], shape=[2**16, 2**16])]), "operator 'RandomNormal'"),
    "cycle": (model([node("Add", ["x", "b"], ["a"]), node("Add", ["a", "x"], ["b"])]), "reads 'b'"),
    "output-twice": (model([node("Relu", ["x"], ["y"])] * 2), "gives 'y', which is there already"),
    "no-logits": (model([node("ReduceMean", ["x"], ["y"], keepdims=0)]), r"must be logits .*, not \(\)"),
    "no-output": (model([node("Relu", ["x"], ["z"])]), "must be logits .*, not None"),
    "constant": (model([node("ConstantOfShape", ["s"], ["k"]), MEAN], [whole("s", [2**15, 2**15])]), "too much memory"),
    "expand": (model([node("Expand", ["x", "s"], ["k"]), MEAN], [whole("s", [2**20, 3, 8, 8])]), "too much memory"),
    "tile": (model([node("Tile", ["x", "s"], ["k"]), MEAN], [whole("s", [1, 1, 2**20, 1])]), "too much memory"),
    "range": (
        model([node("Range", list("abc"), ["k"]), ADD], [whole("a", 0), whole("b", 2**33), whole("c", 1)]),
        "too much memory",
    ),
    "resize": (model([node("Resize", ["x", "", "s"], ["k"]), MEAN], [constant("s", [1, 1, 1e4, 1e4])]), "too much"),
    "pad": (model([node("Pad", ["x", "p"], ["k"]), MEAN], [whole("p", [0] * 6 + [50000] * 2)]), "too much memory"),
    "pad-negative": (model([node("Pad", ["x", "p"], ["y"])], [whole("p", [0] * 6 + [-1] * 2)]), "pads are"),
    "pad-mirrors": (
        model([node("Pad", ["x", "p"], ["y"], mode="reflect")], [whole("p", [0] * 6 + [8] * 2)]),
        "pads are",
    ),
    "convolution-pads": (model([node("Conv", ["x", "w"], ["k"], pads=[50000] * 4), MEAN], [W]), "too much memory"),
    "doubling": (model(doubled(40)), "too much memory or time"),
    "outer-product": (
        model(
            [node("Mul", ["a", "b"], ["k"]), ADD], [constant("a", np.ones((50000, 1))), constant("b", np.ones(50000))]
        ),
        "too much memory",
    ),
    "nodes": (model([node("Relu", ["x"], [f"{i}"]) for i in range(20000)]), "more than 16384"),
    "input": (model([ADD], [constant("k", [1])], shape=("b", 3, 2**40, 8)), "its input .* takes too much memory"),
    "input-rank": (model([ADD], [constant("k", [1])], shape=(3, 8)), "must have the sides"),
    "stride-0": (model([node("Conv", ["x", "w"], ["y"], strides=[0, 0])], [W]), r"strides is \[0, 0\]"),
    "dilation-0": (model([node("Conv", ["x", "w"], ["y"], dilations=[0, 0])], [W]), r"dilations is \[0, 0\]"),
    "group-0": (model([node("Conv", ["x", "w"], ["y"], group=0)], [W]), "group is 0"),
    "bias": (model([node("Conv", ["x", "w", "k"], ["y"])], [W, constant("k", [1])]), "another number of biases"),
    "pool-stride-0": (model([node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[0, 0])]), "strides is"),
    "division-by-0": (
        model([node("Cast", ["x"], ["a"], to=7), node("Div", ["a", "z"], ["b"])], [whole("z", [0])]),
        "integer dividend cannot be told",
    ),
    "names": (model([node("Relu", ["x" * 5000], ["y"])]), "5000 bytes"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_crafted_files_are_refused(tmp_path, name):
    content, message = HOSTILE[name]
    with pytest.raises(InputError, match=message) as error:
        check(tmp_path, content)
    assert str(error.value).startswith(str(tmp_path / "weights.onnx"))
    assert len(str(error.value).splitlines()) == 1


def test_every_truncation_is_refused(tmp_path):
    whole_file = model([node("Conv", ["x", "w"], ["y"], strides=[2, 2])], [W]).SerializeToString()
    check(tmp_path, whole_file)
    passed = []
    for end in range(len(whole_file)):
        try:
            check(tmp_path, whole_file[:end])
            passed.append(end)
        except InputError:
            pass
    assert not passed


def external(**entries):
    made = tensor([4], None, data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        made.external_data.add(key=key, value=str(value))
    return model([ADD], [made], shape=("b", 3, "h", 4))


@pytest.fixture
def package(tmp_path):
    """A folder with 100 bytes of data, and a secret beside it."""
    (tmp_path / "secret").write_bytes(bytes(100))
    folder = tmp_path / "package"
    (folder / "folder").mkdir(parents=True)
    (folder / "data").write_bytes(bytes(100))
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "alias").symlink_to(folder / "data")
    os.mkfifo(folder / "pipe")
    return folder


@pytest.mark.parametrize(
    "entries",
    [
        {"location": "data"},
        {"location": "alias"},
        {"location": "data", "offset": 84, "length": 16},
        {"location": "./folder/../data", "offset": 3},
    ],
)
def test_external_data_in_the_package_passes(package, entries):
    path = package / "weights.onnx"
    path.write_bytes(external(**entries).SerializeToString())
    check_onnx_file(path, (1, 3, 4, 4))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"location": "../secret"}, "no file in the package"),
        ({"location": "folder/../../secret"}, "no file in the package"),
        ({"location": "link"}, "no file in the package"),
        ({"location": "/etc/passwd"}, "no file in the package"),
        ({"location": "/dev/zero"}, "no file in the package"),
        ({"location": "pipe"}, "no file in the package"),
        ({"location": "folder"}, "no file in the package"),
        ({"location": "."}, "no file in the package"),
        ({"location": "absent"}, "no file in the package"),
        ({"location": "*/_ORT_MEM_ADDR_/*"}, "no file in the package"),
        ({"location": ""}, "does not say clearly"),
        ({"offset": 0}, "does not say clearly"),
        ({"location": "data", "offset": 85}, "100 bytes do not hold"),
        ({"location": "data", "offset": -4}, "100 bytes do not hold"),
        ({"location": "data", "offset": "4 "}, "100 bytes do not hold"),
        ({"location": "data", "offset": 2**70}, "100 bytes do not hold"),
        ({"location": "data", "length": 12}, "are 3 values"),
        ({"location": "data", "length": 101}, "100 bytes do not hold"),
    ],
)
def test_external_data_elsewhere_is_refused(package, entries, message):
    path = package / "weights.onnx"
    path.write_bytes(external(**entries).SerializeToString())
    with pytest.raises(InputError, match=message):
        check_onnx_file(path, (1, 3, 4, 4))


def test_weights_are_not_read(tmp_path):
    """A GiB of them, which a sparse file holds without a disk."""
    count = 1 << 28
    path, base = tmp_path / "weights.onnx", model([ADD], shape=("b", 3, "h", count))
    weights = tensor([count], None).SerializeToString() + b"\x4a" + varint(4 * count)
    graph = base.graph.SerializeToString() + b"\x2a" + varint(len(weights) + 4 * count) + weights
    base.ClearField("graph")
    path.write_bytes(base.SerializeToString() + b"\x3a" + varint(len(graph) + 4 * count) + graph)
    os.truncate(path, path.stat().st_size + 4 * count)
    tracemalloc.start()
    with pytest.raises(InputError, match="takes too much memory"):  # and its input, which comes last
        check_onnx_file(path, SHAPE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(InputError, match="claims"):
        check_onnx_file(path, SHAPE)


def varint(number):
    return b"".join(bytes([number >> shift & 127 | 128]) for shift in range(0, 35, 7)) + bytes([number >> 35])
