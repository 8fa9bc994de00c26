"""Every pass over an ONNX graph alone: on a graph of a few nodes, which it changes and which then gives the same."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from converters.export.onnx_graph import passes
from converters.export.onnx_graph.graph import GraphError, infer_shapes
from converters.export.onnx_graph.layout import channels_first
from converters.export.onnx_graph.sizes import fix_size, generalize
from deeplab_jax.models.layers import interpolation_matrix

RNG = np.random.default_rng(0)
TO_FIRST, TO_LAST = [0, 3, 1, 2], [0, 2, 3, 1]


def floats(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def graph_of(text_nodes, constants, shape, output=None):
    """A model of nodes (operator, inputs, output, attributes) with the input `x` and the last output."""
    nodes = [helper.make_node(op, inputs, [out], name=out, **kwargs) for op, inputs, out, kwargs in text_nodes]
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info(text_nodes[-1][2], onnx.TensorProto.FLOAT, output)
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "test", [x], [y], initializers)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return infer_shapes(ir.from_proto(proto))


def run(model, x):
    passes.drop_unused(model.graph)
    proto = ir.to_proto(infer_shapes(model))
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def operators(model):
    return [node.op_type for node in model.graph]


def check_pass(model, apply, x, expected_operators, tolerance=1e-6):
    """The pass leaves these operators, and the same result."""
    before = run(model.clone(), x)
    apply(model.graph)
    assert operators(model) == expected_operators
    np.testing.assert_allclose(run(model, x), before, rtol=0, atol=tolerance * max(np.abs(before).max(), 1))


def test_fold_constants():
    kernel = floats(3, 3, 2, 4)  # HWIO
    nodes = [
        ("Transpose", ["kernel"], "oihw", {"perm": [3, 2, 0, 1]}),
        ("Conv", ["x", "oihw"], "y", {"pads": [1, 1, 1, 1]}),
    ]
    model = graph_of(nodes, {"kernel": kernel}, [2, 2, 5, 6])
    check_pass(model, passes.fold_constants, floats(2, 2, 5, 6), ["Conv"])


def test_drop_identities():
    model = graph_of([("Identity", ["x"], "a", {}), ("Relu", ["a"], "b", {}), ("Identity", ["b"], "y", {})], {}, [2, 3])
    check_pass(model, passes.drop_identities, floats(2, 3), ["Relu"])
    assert model.graph.outputs[0].name == "y"


def test_pool_globally():
    constants = {"axes": np.array([1, 2]), "shape": np.array([2, 1, 1, 3]), "count": np.float32(30)}
    nodes = [
        ("ReduceSum", ["x", "axes"], "sum", {"keepdims": 0}),
        ("Reshape", ["sum", "shape"], "four", {}),
        ("Div", ["four", "count"], "y", {}),
    ]
    model = graph_of(nodes, constants, [2, 5, 6, 3])
    check_pass(model, passes.pool_globally, floats(2, 5, 6, 3), ["Transpose", "GlobalAveragePool", "Transpose"])


def test_what_is_no_mean_is_refused():
    constants = {"axes": np.array([1, 2]), "count": np.float32(7)}
    nodes = [("ReduceSum", ["x", "axes"], "sum", {"keepdims": 1}), ("Div", ["sum", "count"], "y", {})]
    with pytest.raises(GraphError, match="ReduceSum 'sum' is no mean over rows and columns"):
        passes.pool_globally(graph_of(nodes, constants, [2, 5, 6, 3]).graph)


@pytest.mark.parametrize(("mode", "align_corners"), [("align_corners", True), ("half_pixel", False)])
@pytest.mark.parametrize("size", [(4, 5, 16, 20), (7, 11, 25, 41), (33, 33, 513, 513), (1, 4, 4, 9)])
def test_resize(mode, align_corners, size):
    rows, columns = (interpolation_matrix(size[i], size[i + 2], align_corners) for i in (0, 1))
    nodes = [
        ("Einsum", ["rows", "x"], "tall", {"equation": "Hh,bhwc->bHwc"}),
        ("Einsum", ["columns", "tall"], "y", {"equation": "Ww,bhwc->bhWc"}),
    ]
    model = graph_of(nodes, {"rows": rows, "columns": columns}, [1, *size[:2], 2])
    x = floats(1, *size[:2], 2)
    before = run(model.clone(), x)
    passes.resize(model.graph)
    (node,) = model.graph
    assert node.attributes["coordinate_transformation_mode"].as_string() == mode
    # ONNX Runtime resizes NCHW alone.
    node.replace_input_with(2, passes.add_constant(model.graph, "scales", passes.constant(node.inputs[2])[TO_FIRST]))
    model.graph.inputs[0].shape = ir.Shape([1, 2, *size[:2]])
    model.graph.outputs[0].shape = None
    actual = run(model, x.transpose(TO_FIRST)).transpose(TO_LAST)
    assert actual.shape == before.shape
    # Its positions are float32 and reach 513, so their fractions are good to 3e-5.
    np.testing.assert_allclose(actual, before, atol=1e-4)


def test_an_unknown_interpolation_is_refused():
    rows = interpolation_matrix(4, 16, True)
    rows[3, 0] += 0.1
    nodes = [
        ("Einsum", ["rows", "x"], "tall", {"equation": "Hh,bhwc->bHwc"}),
        ("Einsum", ["columns", "tall"], "y", {"equation": "Ww,bhwc->bhWc"}),
    ]
    model = graph_of(nodes, {"rows": rows, "columns": interpolation_matrix(4, 16, True)}, [1, 4, 4, 2])
    with pytest.raises(GraphError, match="interpolates in no known way"):
        passes.resize(model.graph)


@pytest.mark.parametrize("before", [1, 3, 7, 33, 65, 4096])
def test_scales_never_fall_short(before):
    """An engine takes floor(size * scale) in float32 or float64."""
    after = np.arange(before, 2000 + before)
    scales = passes.resize_scales([before] * len(after), after.tolist())
    np.testing.assert_array_equal(np.floor(np.float32(before) * scales), after)
    np.testing.assert_array_equal(np.floor(before * scales.astype(np.float64)), after)


def test_broadcast_pooled():
    model = graph_of([("Expand", ["x", "shape"], "y", {})], {"shape": np.array([1, 3, 5, 4])}, [1, 1, 1, 4])
    passes.broadcast_pooled(model.graph)
    (node,) = model.graph
    np.testing.assert_array_equal(passes.constant(node.inputs[2]), np.float32([1, 3, 5, 1]))
    wide = graph_of([("Expand", ["x", "shape"], "y", {})], {"shape": np.array([3, 3, 5, 4])}, [1, 3, 1, 4])
    with pytest.raises(GraphError, match="spreads more than one pixel"):
        passes.broadcast_pooled(wide.graph)


def test_channels_first():
    constants = {
        "kernel": floats(4, 3, 1, 1),
        "bias": floats(4),
        "row": floats(1, 1, 1, 4),
        "pads": np.array([0, 1, 2, 0, 0, 3, 4, 0]),
        "starts": np.array([0]),
        "ends": np.array([99]),
        "axes": np.array([2]),
        "strides": np.array([2]),
    }
    nodes = [
        ("Transpose", ["x"], "first", {"perm": TO_FIRST}),
        ("Conv", ["first", "kernel"], "conv", {}),
        ("Transpose", ["conv"], "last", {"perm": TO_LAST}),
        ("Add", ["last", "bias"], "biased", {}),
        ("Mul", ["biased", "row"], "scaled", {}),
        ("Concat", ["scaled", "x"], "wide", {"axis": 3}),
        ("Pad", ["wide", "pads"], "padded", {}),
        ("Slice", ["padded", "starts", "ends", "axes", "strides"], "y", {}),
    ]
    model = graph_of(nodes, constants, [2, 5, 6, 3])
    x = floats(2, 5, 6, 3)
    before = run(model.clone(), x)
    channels_first(model.graph)
    assert "Transpose" not in operators(model)
    np.testing.assert_allclose(run(model, x.transpose(TO_FIRST)).transpose(TO_LAST), before, atol=1e-5)


@pytest.mark.parametrize(
    ("nodes", "fault"),
    [
        ([("Softmax", ["x"], "y", {"axis": 3})], "Softmax 'y' is not known with channels first"),
        ([("Transpose", ["x"], "y", {"perm": [0, 2, 1, 3]})], "should permute by"),
        ([("Transpose", ["x"], "a", {"perm": TO_FIRST}), ("Add", ["a", "x"], "y", {})], "reads NHWC and NCHW tensors"),
        ([("GlobalAveragePool", ["x"], "y", {})], "reads an NHWC tensor"),
    ],
)
def test_unknown_layouts_are_refused(nodes, fault):
    with pytest.raises(GraphError, match=fault):
        channels_first(graph_of(nodes, {}, [2, 3, 3, 3]).graph)


def test_pad_in_pool():
    constants = {"pads": np.array([0, 0, 1, 0, 0, 0, 1, 1]), "low": np.float32(-np.inf)}
    nodes = [
        ("Pad", ["x", "pads", "low"], "padded", {}),
        ("MaxPool", ["padded"], "y", {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "VALID"}),
    ]
    check_pass(graph_of(nodes, constants, [2, 3, 7, 8]), passes.pad_in_pool, -1 - floats(2, 3, 7, 8) ** 2, ["MaxPool"])
    zero = graph_of(nodes, {**constants, "low": np.float32(0)}, [2, 3, 7, 8])
    with pytest.raises(GraphError, match="pads with what a max-pool may choose"):
        passes.pad_in_pool(zero.graph)


def test_subsample():
    constants = {"start": np.zeros(1, np.int64), "end": np.array([9]), "rows": np.array([2]), "columns": np.array([3])}
    constants["two"] = np.array([2])
    nodes = [
        ("Slice", ["x", "start", "end", "rows", "two"], "a", {}),
        ("Slice", ["a", "start", "end", "columns", "two"], "y", {}),
    ]
    check_pass(graph_of(nodes, constants, [2, 3, 9, 8]), passes.subsample, floats(2, 3, 9, 8), ["MaxPool"])
    part = graph_of(nodes, {**constants, "end": np.array([7])}, [2, 3, 9, 8])
    with pytest.raises(GraphError, match="takes no every second row and column"):
        passes.subsample(part.graph)


def test_clip():
    nodes = [("Max", ["x", "low"], "a", {}), ("Min", ["a", "high"], "y", {})]
    model = graph_of(nodes, {"low": np.float32(0), "high": np.float32(6)}, [2, 3, 4, 4])
    check_pass(model, passes.clip, 5 * floats(2, 3, 4, 4), ["Clip"])


def norm_constants(channels):
    scale, variance = (RNG.uniform(0.5, 1.5, channels).astype(np.float32) for _ in range(2))
    return {"scale": scale, "shift": floats(channels), "mean": floats(channels), "variance": variance}


@pytest.mark.parametrize("bias", [False, True])
def test_fold_norms(bias):
    constants = {"kernel": floats(4, 3, 3, 3), **norm_constants(4), **({"bias": floats(4)} if bias else {})}
    nodes = [
        ("Conv", ["x", "kernel", *(["bias"] if bias else [])], "conv", {}),
        ("BatchNormalization", ["conv", "scale", "shift", "mean", "variance"], "y", {"epsilon": 1e-3}),
    ]
    check_pass(graph_of(nodes, constants, [2, 3, 7, 8]), passes.fold_norms, floats(2, 3, 7, 8), ["Conv"])


def test_norms_stay_where_the_convolution_is_read_elsewhere_or_there_is_none():
    constants = {"kernel": floats(3, 3, 1, 1), **norm_constants(3)}
    norm = ["scale", "shift", "mean", "variance"]
    shared = [
        ("Conv", ["x", "kernel"], "conv", {}),
        ("BatchNormalization", ["conv", *norm], "normed", {"epsilon": 1e-3}),
        ("Add", ["normed", "conv"], "y", {}),
    ]
    kept = ["Conv", "BatchNormalization", "Add"]
    check_pass(graph_of(shared, constants, [2, 3, 4, 4]), passes.fold_norms, floats(2, 3, 4, 4), kept)
    alone = graph_of([("BatchNormalization", ["x", *norm], "y", {"epsilon": 1e-3})], constants, [2, 3, 4, 4])
    check_pass(alone, passes.fold_norms, floats(2, 3, 4, 4), ["BatchNormalization"])


def test_fold_biases():
    nodes = [("Conv", ["x", "kernel"], "conv", {}), ("Add", ["conv", "bias"], "y", {})]
    model = graph_of(nodes, {"kernel": floats(4, 3, 1, 1), "bias": floats(1, 4, 1, 1)}, [2, 3, 4, 4])
    check_pass(model, passes.fold_biases, floats(2, 3, 4, 4), ["Conv"])
    residual = graph_of([("Conv", ["x", "kernel"], "conv", {}), ("Add", ["conv", "x"], "y", {})], {
        "kernel": floats(3, 3, 1, 1)
    }, [2, 3, 4, 4])  # fmt: skip
    check_pass(residual, passes.fold_biases, floats(2, 3, 4, 4), ["Conv", "Add"])


def strided(kind, pads, **attributes):
    kernel = {"kernel": floats(3, 3, 3, 3)} if kind == "Conv" else {}
    window = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": pads, **attributes}
    return graph_of([(kind, ["x", *kernel], "y", window)], kernel, [1, 3, 128, 160])


@pytest.mark.parametrize("kind", ["Conv", "MaxPool"])
@pytest.mark.parametrize("size", [(7, 8), (8, 7)])
def test_tensorflows_padding_holds_for_any_size(kind, size):
    """Where the traced size is even it is (0, 1); where a size is odd it must become (1, 1)."""
    general = generalize(strided(kind, [0, 0, 1, 1], **({"dilations": [1, 1]} if kind == "Conv" else {})))
    x = floats(2, 3, *size)
    expected = np.pad(
        x, [(0, 0), (0, 0), *((side % 2, 1) for side in size)], constant_values=0 if kind == "Conv" else -9
    )
    plain = strided(kind, [0, 0, 0, 0])
    plain.graph.inputs[0].shape, plain.graph.outputs[0].shape = ir.Shape(expected.shape), None
    if kind == "Conv":
        kernel = general.graph.initializers["kernel"].const_value
        plain.graph.initializers["kernel"].const_value = kernel
    fixed = fix_size(general, size)
    for model in (general, fixed):
        np.testing.assert_allclose(run(model, x), run(plain.clone(), expected), atol=1e-5)
    assert "auto_pad" not in next(iter(fixed.graph)).attributes


def test_other_uneven_padding_is_refused():
    with pytest.raises(GraphError, match="pads by"):
        generalize(strided("Conv", [1, 0, 1, 1], dilations=[1, 1]))


@pytest.mark.parametrize(("size", "kernel"), [((5, 40), (1, 3)), ((40, 5), (3, 1)), ((5, 5), (1, 1)), ((6, 7), (3, 3))])
def test_taps_that_see_padding_alone_are_left_out(size, kernel):
    rate = 6 if 40 in size else 5
    window = {"kernel_shape": [3, 3], "dilations": [rate] * 2, "pads": [rate] * 4}
    model = generalize(
        graph_of([("Conv", ["x", "kernel"], "y", window)], {"kernel": floats(4, 3, 3, 3)}, [1, 3, 128, 160])
    )
    x = floats(2, 3, *size)
    before = run(model.clone(), x)
    fixed = fix_size(model, size)
    (node,) = fixed.graph
    assert tuple(node.attributes["kernel_shape"].as_ints()) == kernel
    np.testing.assert_allclose(run(fixed, x), before, atol=1e-5)
