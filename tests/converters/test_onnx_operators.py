"""What the check of ONNX files knows of each operator is held against ONNX Runtime."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from deeplab_jax.package.onnx_check.file import Reader
from deeplab_jax.package.onnx_check.graph import Tensor
from deeplab_jax.package.onnx_check.operators import OPERATORS
from deeplab_jax.package.onnx_check.sizes import results_of

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
    case("ConstantOfShape", np.array([2, 3], np.int64), value=numpy_helper.from_array(np.array([7], np.int64))),
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
    proto = helper.make_node(op, names, results, name="n", **attributes)
    kinds = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in given.items()}
    inputs = [helper.make_tensor_value_info(name, kinds[name], array.shape) for name, array in given.items()]
    graph = helper.make_graph([proto], "g", inputs, [helper.make_empty_tensor_value_info(name) for name in results])
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    expected = session.run(None, given)

    read = Reader(Path()).node(memoryview(proto.SerializeToString()))
    known = [Tensor(kinds[name], given[name].shape, given[name]) if name else None for name in names]
    actual, _ = results_of(read, known)
    assert [tensor.shape for tensor in actual] == [array.shape for array in expected]
    assert helper.tensor_dtype_to_np_dtype(actual[0].type) == expected[0].dtype
    if actual[0].value is not None:
        np.testing.assert_array_equal(actual[0].value, expected[0])
    assert actual[0].value is not None or arrays[0] is IMAGE or op in ("MatMul", "Gemm", "DequantizeLinear", "Squeeze")


def test_older_operators_have_their_bounds_as_attributes():
    clip = Reader(Path()).node(
        memoryview(helper.make_node("Clip", ["i"], ["o"], min=-1.0, max=2.0).SerializeToString())
    )
    values = np.array([-3, 0, 5], np.float32)
    (actual,), _ = results_of(clip, [Tensor(TensorProto.FLOAT, values.shape, values)])
    np.testing.assert_array_equal(actual.value, np.array([-1, 0, 2], np.float32))


def test_every_rule_is_tried():
    """But those that are the same function for another operator."""
    tried = {OPERATORS[parameters.values[0]].shapes for parameters in CASES}
    assert tried == {operator.shapes for operator in OPERATORS.values()}
