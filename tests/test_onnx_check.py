"""What the check of ONNX files knows is held against ONNX Runtime; what crafted files do, against a limit of memory."""

import os
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from deeplab_jax.errors import InputError
from deeplab_jax.inference.onnx_check.file import Reader, check_onnx_file
from deeplab_jax.inference.onnx_check.graph import Tensor
from deeplab_jax.inference.onnx_check.sizes import RULES, results_of

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


IMAGE = np.random.default_rng(0).normal(size=(2, 6, 9, 7)).astype(np.float32)
KERNEL = np.ones((4, 3, 3, 2), np.float32)
INTS = np.array([3, 1, 2], np.int64)
GRID = np.arange(24, dtype=np.int64).reshape(2, 3, 4) + 1


def case(op, *inputs, outputs=1, **attributes):
    return pytest.param(op, inputs, outputs, attributes, id=f"{op}-{'-'.join(attributes) or len(inputs)}")


CASES = [
    case("Relu", IMAGE),
    case("Clip", IMAGE, np.float32(0), np.float32(1)),
    case("Clip", GRID, np.int64(5), np.int64(9)),
    case("Clip", GRID, None, np.int64(9)),
    case("Clip", GRID),
    case("Cast", IMAGE, to=7),
    case("Cast", GRID, to=1),
    case("Softmax", IMAGE, axis=1),
    case("LRN", IMAGE, size=3),
    case("Add", IMAGE, np.ones((6, 1, 1), np.float32)),
    case("Div", GRID, np.int64(5)),
    case("Div", -GRID, np.int64(5)),
    case("Sub", GRID, INTS[:, None]),
    case("Mul", GRID, np.int64(5)),
    case("Max", GRID, np.int64(5), INTS[:, None]),
    case("Min", GRID, np.int64(5)),
    case("Equal", GRID, np.int64(5)),
    case("Greater", GRID, np.int64(5)),
    case("Less", GRID, np.int64(5)),
    case("Where", GRID > 5, GRID, np.int64(0)),
    case("Floor", np.array([1.5, -1.5], np.float32)),
    case("Ceil", np.array([1.5, -1.5], np.float32)),
    case("Sqrt", np.array([4, 9], np.float32)),
    case("Neg", GRID),
    case("Abs", -GRID),
    case("BatchNormalization", IMAGE, *[np.ones(6, np.float32)] * 4),
    case("LayerNormalization", IMAGE, *[np.ones(7, np.float32)] * 2),
    case("LayerNormalization", IMAGE, np.ones((9, 7), np.float32), axis=2),
    case("Conv", IMAGE, KERNEL, group=2),
    case("Conv", IMAGE, KERNEL, np.ones(4, np.float32), group=2, strides=[2, 1], pads=[1, 0, 2, 1]),
    case("Conv", IMAGE, KERNEL, group=2, dilations=[2, 3], pads=[4, 3, 4, 3]),
    case("Conv", IMAGE, KERNEL, group=2, strides=[2, 2], auto_pad="SAME_UPPER"),
    case("Conv", IMAGE, KERNEL, group=2, strides=[2, 2], auto_pad="VALID"),
    case("MaxPool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    case("MaxPool", IMAGE, outputs=2, kernel_shape=[2, 3]),
    case("AveragePool", IMAGE, kernel_shape=[4, 4], strides=[4, 4], auto_pad="SAME_LOWER"),
    case("MaxPool", IMAGE, kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1),
    case("MaxPool", IMAGE, kernel_shape=[2, 2], strides=[4, 3], pads=[1, 1, 1, 1], ceil_mode=1),
    case("GlobalAveragePool", IMAGE),
    case("Concat", IMAGE, IMAGE[:, :2], axis=-3),
    case("Concat", INTS, INTS, axis=0),
    case("Reshape", IMAGE, np.array([0, 2, -1], np.int64)),
    case("Reshape", GRID, np.array([4, -1], np.int64)),
    case("Flatten", IMAGE, axis=2),
    case("Flatten", IMAGE, axis=-1),
    case("Transpose", GRID, perm=[2, 0, 1]),
    case("Transpose", GRID),
    case("Squeeze", IMAGE[:1, :, :1]),
    case("Squeeze", IMAGE[:1, :, :1], np.array([-2], np.int64)),
    case("Unsqueeze", INTS, np.array([0, -1], np.int64)),
    case("Shape", IMAGE),
    case("Shape", IMAGE, start=-2),
    case("Size", IMAGE),
    case("Gather", IMAGE, np.zeros((2, 5), np.int64), axis=2),
    case("Gather", INTS, np.int64(-1)),
    case("Slice", IMAGE, *(np.array(n, np.int64) for n in ([1, -5], [99, -1], [1, 2], [2, 1]))),
    case("Slice", INTS, *(np.array(n, np.int64) for n in ([-1], [-(2**63)], [0], [-1]))),
    case("Split", IMAGE, np.array([1, 3, 2], np.int64), outputs=3, axis=1),
    case("Split", IMAGE, outputs=2, axis=2, num_outputs=2),
    case("Expand", INTS[:, None], np.array([2, 1, 4], np.int64)),
    case("Tile", GRID, np.array([1, 2, 3], np.int64)),
    case("ConstantOfShape", np.array([2, 3], np.int64), value=whole("", [7])),
    case("ConstantOfShape", np.array([2, 3], np.int64)),
    case("Pad", IMAGE, np.array([0, 0, 1, 2, 0, 0, 3, 4], np.int64)),
    case("Pad", IMAGE, np.array([1, 2, 3, 4], np.int64), np.float32(0), np.array([2, -1], np.int64)),
    case("Resize", IMAGE, None, np.array([1, 1, 2.5, 0.4], np.float32)),
    case("Resize", IMAGE, None, None, np.array([2, 6, 5, 20], np.int64), mode="linear"),
    case("Resize", IMAGE, None, None, np.array([5, 20], np.int64), mode="linear", axes=[2, 3]),
    case("ReduceMean", IMAGE, np.array([2, -1], np.int64)),
    case("ReduceSum", GRID, np.array([0], np.int64), keepdims=0),
    case("ReduceSum", GRID, np.zeros(0, np.int64), noop_with_empty_axes=1),
    case("ReduceMax", GRID, keepdims=0),
    case("ReduceMin", GRID, np.array([1], np.int64)),
    case("ReduceProd", INTS, keepdims=0),
    case("ArgMax", IMAGE, axis=1, keepdims=0),
    case("MatMul", IMAGE, np.ones((7, 5), np.float32)),
    case("Gemm", np.ones((3, 4), np.float32), np.ones((5, 4), np.float32), np.ones(5, np.float32), transB=1),
    case("Einsum", IMAGE, np.ones((9, 5), np.float32), equation="bchw,hk->bckw"),
    case("Range", *(np.int64(n) for n in (2, 11, 4))),
    case("Range", *(np.float32(n) for n in (2, 1, -0.25))),
    case("Identity", GRID),
    case("Constant", value_ints=[4, 5]),
    case("Constant", value_float=0.5),
    case("DequantizeLinear", GRID.astype(np.int8), np.float32(0.5), np.int8(1)),
    case("QuantizeLinear", IMAGE, np.float32(0.5), np.uint8(128)),
]


@pytest.mark.parametrize(("op", "arrays", "outputs", "attributes"), CASES)
def test_shapes_types_and_values_are_those_of_onnx_runtime(op, arrays, outputs, attributes):
    names = ["" if array is None else f"i{place}" for place, array in enumerate(arrays)]
    given = {name: np.asarray(array) for name, array in zip(names, arrays, strict=True) if array is not None}
    results = [f"o{place}" for place in range(outputs)]
    proto = node(op, names, results, name="n", **attributes)
    kinds = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in given.items()}
    inputs = [helper.make_tensor_value_info(name, kinds[name], array.shape) for name, array in given.items()]
    graph = helper.make_graph([proto], "g", inputs, [helper.make_empty_tensor_value_info(name) for name in results])
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    expected = session.run(None, given)

    read = Reader(Path()).node(memoryview(proto.SerializeToString()))
    known = [Tensor(kinds[name], given[name].shape, given[name]) if name else None for name in names]
    found, _ = results_of(read, known)
    assert [tensor.shape for tensor in found] == [array.shape for array in expected]
    assert helper.tensor_dtype_to_np_dtype(found[0].type) == expected[0].dtype
    if found[0].value is not None:
        np.testing.assert_array_equal(found[0].value, expected[0])
    assert found[0].value is not None or arrays[0] is IMAGE or op in ("MatMul", "Gemm", "DequantizeLinear", "Squeeze")


def test_older_operators_have_their_bounds_as_attributes():
    clip = Reader(Path()).node(memoryview(node("Clip", ["i"], ["o"], min=-1.0, max=2.0).SerializeToString()))
    values = np.array([-3, 0, 5], np.float32)
    (found,), _ = results_of(clip, [Tensor(TensorProto.FLOAT, values.shape, values)])
    np.testing.assert_array_equal(found.value, np.array([-1, 0, 2], np.float32))


def test_every_rule_is_tried():
    """But those that are the same function for another operator."""
    tried = {RULES[parameters.values[0]] for parameters in CASES}
    assert tried == set(RULES.values())


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


W, MEAN = constant("w", KERNEL[:, :3]), node("ReduceMean", ["k"], ["y"])
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
