"""Which graphs TensorRT takes: its parser's rules, and what ONNX Runtime's own quantization makes of them."""

import numpy as np
import onnx
import pytest
from onnx import parser
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from converters.export.tensorrt_engine.check import check_graph, faults, precision
from deeplab_jax.errors import InputError

SHAPE = "size = Shape <start = 2, end = 4> (images)"
ALIGNED = 'mode = "linear", coordinate_transformation_mode = "align_corners"'
QUANTIZED = "float scale = {0.5}, int8 zero = {0}, float[2] scales = {0.5, 0.25}, int8[2] zeros = {0, 0}"
KERNEL = "float[2,3,1,1] kernel = {1, 2, 3, 4, 5, 6}, int8[2,3,1,1] packed = {1, 2, 3, 4, 5, 6}"


def model(body, images="float[batch,3,32,48] images", logits="float[batch,2,h,w] logits", constants=KERNEL, opset=18):
    head = f'<ir_version: 10, opset_import: ["" : {opset}, "other" : 1]>'
    return parser.parse_model(f"{head} graph ({images}) => ({logits}) <{constants}> {{ {body} }}")


TAKEN = [
    "logits = Conv <kernel_shape = [1, 1]> (images, kernel)",
    f"x = Conv (images, kernel) {SHAPE} logits = Resize <{ALIGNED}, axes = [2, 3]> (x, , , size)",
    f"none = Constant <value = float[0] {{}}> () {SHAPE} x = Conv (images, kernel) first = Shape <end = 2> (x)"
    " four = Concat <axis = 0> (first, size) logits = Resize (x, none, none, four)",
    "x = Conv (images, kernel) low = Constant <value = float {0.0}> () y = Clip (x, low)"
    ' logits = MaxPool <kernel_shape = [3, 3], strides = [2, 2], auto_pad = "SAME_UPPER"> (y)',
    "half = Cast <to = 10> (images) y = Relu (half) x = Cast <to = 1> (y) logits = Conv (x, kernel)",
]


@pytest.mark.parametrize("body", TAKEN)
def test_good_graphs_are_taken(body):
    assert faults(model(body)) == []
    assert check_graph(model(body), "x.onnx") == (None, 3, 32, 48)


def resize(settings, constants, data="x", inputs=""):
    return f"x = Conv (images, kernel) logits = Resize <{settings}> ({data}, , {inputs})", constants


REFUSED = {
    "the batch is forgotten": (*resize(f"{ALIGNED}, axes = [2, 3]", "int64[2] size = {64, 96}", inputs=", size"),
        "take the size from a Shape node"),
    "a computed scale with axes": (
        "x = Conv (images, kernel) f = Relu (factors) logits = Resize <axes = [2, 3]> (x, , f)",
        "float[2] factors = {2, 2}", "computed"),
    "another kind of resizing": (*resize('mode = "cubic"', "float[4] f = {1, 1, 2, 2}", inputs="f"), "mode is 'cubic'"),
    "antialiasing": (*resize('mode = "linear", antialias = 1', "float[4] f = {1, 1, 2, 2}", inputs="f"),
        "antialias is 1"),
    "a dilated pool": ("x = Conv (images, kernel) logits = MaxPool <kernel_shape = [3, 3], dilations = [2, 2]> (x)", "",
        "dilated"),
    "indices": ("x = Conv (images, kernel) logits, i = MaxPool <kernel_shape = [3, 3]> (x)", "", "one output"),
    "training": (
        "x = Conv (images, kernel) logits, m, v = BatchNormalization <training_mode = 1> (x, two, two, two, two)",
        "float[2] two = {1, 1}", "training_mode is 1"),
    "an operator": ("x = Conv (images, kernel) logits = Mish (x)", "", "Mish"),
    "another domain": ("x = Conv (images, kernel) logits = other.Relu (x)", "", "not known to be supported"),
    "computed axes": ("x = Conv (images, kernel) a = Add (axes, axes) logits = ReduceMean (x, a)",
        "int64[1] axes = {1}", "axes must be a constant"),
    "uint8 activations": (
        "q = QuantizeLinear (images, scale, zero) x = DequantizeLinear (q, scale, zero) logits = Conv (x, kernel)",
        "float scale = {0.5}, uint8 zero = {0}", "not uint8"),
    "a zero point that is none": (
        "q = QuantizeLinear (images, scale, zero) x = DequantizeLinear (q, scale, zero) logits = Conv (x, kernel)",
        "float scale = {0.5}, int8 zero = {3}", "not int8 [3]"),
    "no zero point, which ONNX reads as uint8": (
        "q = QuantizeLinear (images, scale) x = DequantizeLinear (q, scale) logits = Conv (x, kernel)",
        "float scale = {0.5}", "must be constants"),
    "a scale of 0": (
        "q = QuantizeLinear (images, scale, zero) x = DequantizeLinear (q, scale, zero) logits = Conv (x, kernel)",
        "float scale = {0.0}, int8 zero = {0}", "above 0"),
    "an activation with many scales": (
        "x = Conv (images, kernel) q = QuantizeLinear <axis = 1> (x, scales, zeros)"
        " logits = DequantizeLinear <axis = 1> (q, scales, zeros)", QUANTIZED, "one scale only"),
    "weights that are quantized along another axis": (
        "x = Conv (images, kernel) w = DequantizeLinear <axis = 1> (square, scales, zeros)"
        " logits = Conv <kernel_shape = [1, 1]> (x, w)",
        f"{QUANTIZED}, int8[2,2,1,1] square = {{1, 2, 3, 4}}", "axis 0"),
    "weights with scales for something else": (
        "w = DequantizeLinear <axis = 0> (packed, scales3, zeros3) logits = Conv <kernel_shape = [1, 1]> (images, w)",
        "float[3] scales3 = {1, 2, 3}, int8[3] zeros3 = {0, 0, 0}", "axis 0"),
    "a number of axes that depends on sizes": (
        "x = Squeeze (images) y = Relu (x) logits = Reshape (y, four)", "int64[4] four = {1, 2, 48, 48}", "not fixed"),
    "padding said twice": (
        "x = Conv (images, kernel)"
        ' logits = MaxPool <kernel_shape = [1, 1], auto_pad = "SAME_UPPER", pads = [0, 0, 0, 0]> (x)', "",
        "both auto_pad and pads"),
    "a quantized kernel of no declared size": (
        "w = DequantizeLinear <axis = 0> (packed, scales, zeros) logits = Conv (images, w)", QUANTIZED, "kernel_shape"),
    "a quantized bias": (
        "b = DequantizeLinear (bias, scale, no) logits = Conv (images, kernel, b)",
        "int32[2] bias = {1, 2}, float scale = {0.5}, int32 no = {0}", "its input is INT32"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_tensorrt_would_refuse_or_misread_is_named(case):
    body, constants, fault = REFUSED[case]
    actual = faults(model(body, constants=", ".join(filter(None, (KERNEL, constants)))))
    assert any(fault in line for line in actual), actual


def test_a_size_that_hangs_on_rounding_is_refused():
    def resized(scale):
        constants = f"{KERNEL}, float[4] factors = {{1, 1, {scale!r}, {scale!r}}}"
        body, _ = resize(ALIGNED, "", inputs="factors")
        return faults(model(body, images="float[batch,3,41,41] images", constants=constants))

    ratio = np.float32(161 / 41)
    assert resized(float(np.nextafter(ratio, np.float32(4)))) == []
    below = next(s for s in (ratio, np.nextafter(ratio, np.float32(0))) if float(s) < 161 / 41)
    assert float(np.float32(41) * below) == 161  # in float32, though less than that in truth
    assert any("161 is left to rounding" in line for line in resized(float(below)))


def test_ports_opset_and_types_are_checked():
    conv = TAKEN[0]
    assert "input images is FLOAT16" in faults(model("x = Cast <to = 1> (images) logits = Conv (x, kernel)",
        images="float16[batch,3,32,48] images"))[0]  # fmt: skip
    four = model("logits = Relu (images)", images="float[batch,4,32,48] images", logits="float[batch,4,32,48] logits")
    assert "(batch, 3, height, width)" in faults(four)[0]
    assert "2 inputs" in faults(model(conv, images="float[batch,3,32,48] images, float[1] more"))[0]
    assert "opset 11" in faults(model(conv, opset=11))[0]
    mixed = "half = Cast <to = 10> (images) x = Conv (half, kernel) logits = Cast <to = 1> (x)"
    assert "do not fit together" in faults(model(mixed))[0]
    with pytest.raises(InputError, match=r"^TensorRT cannot take x.onnx: opset 11 must be one of 13 to 22$"):
        check_graph(model(conv, opset=11), "x.onnx")


class Random(CalibrationDataReader):
    def __init__(self):
        rng = np.random.default_rng(0)
        self.rows = iter([{"images": rng.normal(size=(1, 3, 32, 48)).astype(np.float32)} for _ in range(2)])

    def get_next(self):
        return next(self.rows, None)


FOR_TENSORRT = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}


@pytest.mark.parametrize(("activations", "extra", "wanted"), [
    (QuantType.QInt8, FOR_TENSORRT, []),
    (QuantType.QUInt8, {}, ["UINT8", "INT32", "zero point must be int8 0"]),
    (QuantType.QInt8, {}, ["INT32", "zero point must be int8 0"]),
])  # fmt: skip
def test_what_onnx_runtime_quantizes(tmp_path, activations, extra, wanted):
    conv = "Conv <kernel_shape = [1, 1]>"
    body = f"x = {conv} (images, kernel, bias) y = Relu (x) logits = {conv} (y, k)"
    constants = f"{KERNEL}, float[2] bias = {{1, 2}}, float[2,2,1,1] k = {{1, -2, 3, -4}}"
    onnx.save(model(body, constants=constants), tmp_path / "float.onnx")
    quantize_static(
        tmp_path / "float.onnx",
        tmp_path / "int8.onnx",
        Random(),
        quant_format=QuantFormat.QDQ,
        activation_type=activations,
        weight_type=QuantType.QInt8,
        per_channel=True,
        extra_options=extra,
    )
    quantized = onnx.load(tmp_path / "int8.onnx")
    assert precision(quantized) == "int8"
    actual = faults(quantized)
    assert bool(actual) == bool(wanted), actual
    for fault in wanted:
        assert any(fault in line for line in actual), actual
