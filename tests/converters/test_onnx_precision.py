"""ONNX graphs in half precision and in 8 bits, beside the float32 graph."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from converters.export.onnx_graph import onnx_package as converter
from converters.export.onnx_graph import precision
from deeplab_jax.errors import InputError


@pytest.fixture(scope="module")
def float32(onnx_package):
    return onnx.load(onnx_package / "weights.onnx")


@pytest.fixture(scope="module")
def inputs():
    return [np.random.default_rng(seed).normal(size=(1, 3, 49, 65)).astype(np.float32) for seed in range(4)]


def compare(graph, other, images, exact=False):
    """Largest difference over the largest logit, and the share of pixels of the same class."""
    a, b = (converter.open_session(g, exact=exact).run(None, {"images": images})[0] for g in (graph, other))
    return np.abs(a - b).max() / np.abs(a).max(), (a.argmax(1) == b.argmax(1)).mean()


def types(graph):
    inferred = onnx.shape_inference.infer_shapes(graph, strict_mode=True)
    return {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}


def test_half_precision(float32, inputs):
    half = precision.to_float16(float32, inputs)
    onnx.checker.check_model(half, full_check=True)
    difference, agreement = compare(float32, half, inputs[0])
    assert 0 < difference < 5e-3  # a half number has 11 bits, 5e-4, and errors add up over the layers
    assert agreement > 0.99
    actual = types(half)
    assert actual["encoder.stage1.0.conv1"] == actual["classifier"] == onnx.TensorProto.FLOAT16
    assert [node.type.tensor_type.elem_type for node in (*half.graph.input, *half.graph.output)] == [1, 1]
    weights = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    assert weights["encoder.stage1.0.conv1.weight"] == onnx.TensorProto.FLOAT16


def test_half_precision_does_not_overflow(float32, inputs):
    """A layer that reaches 1e6 and the next, which brings it back, work in float32."""
    large = onnx.ModelProto()
    large.CopyFrom(float32)
    scale(large, "encoder.stage2.0.conv1", ("weight", "bias"), 1e6)
    scale(large, "encoder.stage2.0.conv2", ("weight",), 1e-6)
    half = precision.to_float16(large, inputs)
    assert types(half)["encoder.stage2.0.conv1"] == onnx.TensorProto.FLOAT
    difference, agreement = compare(large, half, inputs[0])
    assert difference < 5e-3
    assert agreement > 0.99


def scale(graph, layer, roles, factor):
    for tensor in graph.graph.initializer:
        if tensor.name in [f"{layer}.{role}" for role in roles]:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), tensor.name))


@pytest.mark.parametrize("symmetric", [False, True])
def test_eight_bits(float32, inputs, symmetric):
    graph = precision.to_int8(float32, inputs, symmetric=symmetric)
    onnx.checker.check_model(graph, full_check=True)
    difference, agreement = compare(float32, graph, inputs[0], exact=symmetric)
    assert 0 < difference < 0.3  # untrained, so no range is used well
    assert agreement > 0.8
    kinds = {tensor.name: tensor.data_type for tensor in graph.graph.initializer}
    points = [kind for name, kind in kinds.items() if name.endswith("zero_point") and "weight" not in name]
    signed = onnx.TensorProto.INT8 if symmetric else onnx.TensorProto.UINT8
    assert signed in points
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    scales = values["encoder.stage2.0.conv1.weight_scale"]
    assert scales.shape == (16,)  # one a channel
    weights = {name: np.abs(value.astype(int)).max() for name, value in values.items() if name.endswith("_quantized")}
    weights = {name: largest for name, largest in weights.items() if "weight" in name}
    assert {name: 127 if symmetric or "depthwise" in name else 64 for name in weights} == weights
    if symmetric:  # as TensorRT demands
        assert not [name for name, value in values.items() if name.endswith("zero_point") and value.any()]
        assert onnx.TensorProto.INT32 not in kinds.values()
    assert values["classifier.weight"].dtype == np.float32


def test_exact_sessions_do_not_add_products_in_16_bits(float32, inputs):
    """Two products of 255 and 127, in the corner, are more than they hold."""
    graph = parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 18]> graph (float[1, 2, 2, 2] images) => (float[1, 1, 2, 2] logits)
        <float one = {1}, uint8 zero = {0}, int8 no = {0}, int8[1, 2, 1, 1] weights = {127, 127}, float step = {400}> {
            q = QuantizeLinear (images, one, zero) x = DequantizeLinear (q, one, zero)
            w = DequantizeLinear (weights, one, no) y = Conv (x, w)
            r = QuantizeLinear (y, step, zero) logits = DequantizeLinear (r, step, zero)
        }""")
    images = np.array([[[[255, 0], [3, 4]]] * 2], np.float32)
    actual = converter.open_session(graph, exact=True).run(None, {"images": images})[0]
    np.testing.assert_array_equal(actual, [[[[64800, 0], [800, 1200]]]])  # 64770, 0, 762, 1016 in steps of 400

    symmetric = precision.to_int8(float32, inputs, symmetric=True)
    sessions = (converter.open_session(symmetric, exact=exact) for exact in (True, False))
    exact, fused = (session.run(None, {"images": inputs[0]})[0] for session in sessions)
    assert not np.array_equal(exact, fused)  # kernels of 8 bits round in between, on any CPU


def test_lower_precision_is_run_before_it_is_written(float32):
    broken = onnx.ModelProto()
    broken.CopyFrom(float32)
    scale(broken, "classifier", ("weight",), 1e38)
    scale(broken, "aspp.refine.conv.pointwise", ("weight",), 1e10)
    with pytest.raises(InputError, match="its logits at batch 1 and 49x65 are not finite; nothing was written"):
        converter.check_runs(broken, [(49, 65)])
    with pytest.raises(InputError, match=r"cannot be run: .*; nothing was written"):
        converter.check_runs(float32, [(97, 161)])
    converter.check_runs(float32, [(49, 65)])


def test_agreement_of_one_class_is_on_which_side_of_half_it_is():
    def graph(body, channels):
        ports = [f"float[batch, {channels}, h, w] {name}" for name in ("images", "logits")]
        head = '<ir_version: 10, opset_import: ["" : 18]> graph'
        return parser.parse_model(f"{head} ({ports[0]}) => ({ports[1]}) {{ logits = {body} (images) }}")

    logits = np.array([[[[-2, 3, 1, -1]]]], np.float32)
    assert converter.agreement(graph("Identity", 1), graph("Neg", 1), [logits]) == 0
    assert converter.agreement(graph("Identity", 1), graph("Tanh", 1), [logits, logits]) == 1
    assert converter.agreement(graph("Identity", 1), graph("Relu", 1), [logits]) == 0.5  # of which two are 0
    pair = np.concatenate([logits, logits / 2], 1)
    assert converter.agreement(graph("Identity", 2), graph("Relu", 2), [pair]) == 0.5
