"""ONNX graphs of whole models: equal to JAX at any size, tidy, named, described."""

from collections import Counter
from dataclasses import replace

import jax
import numpy as np
import onnx
import pytest
from flax import nnx

from converters.export.compare import first_difference, layer_outputs
from converters.export.onnx_graph import onnx_package as converter
from converters.export.onnx_graph import precision
from converters.export.onnx_graph.sizes import fix_size
from converters.export.onnx_graph.trace import finish, trace
from converters.export.tensorrt_engine.check import faults
from deeplab_jax.errors import InputError
from deeplab_jax.model_config import (
    ASPPConfig,
    DecoderConfig,
    DPCConfig,
    MobileNetV2Config,
    ModelConfig,
    ResNetConfig,
    XceptionConfig,
)
from deeplab_jax.models import build_model
from deeplab_jax.models.layers import Conv
from deeplab_jax.package import jax_weights
from deeplab_jax.package.folder import read_package
from helpers.fixtures import randomize_statistics
from helpers.integer_convolutions import INT16, integer_convolutions

ENTRY = ((8, 2), (8, 2), (16, 2))
EXIT = ((16, 16, 16), (16, 16, 24))
CONFIGS = {  # between them every kind of layer, padding, upsampling and head
    "ResNet, V3+": ModelConfig(
        4,
        ResNetConfig((1, 1, 1, 1), False, 16, "whole-stage", width=8),
        ASPPConfig((1, 12), 8, "separable", "separable"),
        DecoderConfig(8, 8),
    ),
    "ResNet that strides last, V3": ModelConfig(
        3,
        ResNetConfig(
            (2, 2, 2, 2), True, 8, "after-strided-block", width=8, groups=2, group_width=32, deep_stem=(4, 4, 8),
            pool_padding="same", stride_block="last", low_level="residual", multi_grid=(1, 2),
        ),
        ASPPConfig((2, 3), 8, refine=None, pool_first=True),
        align_corners=False,
    ),
    "Xception, dense prediction cell": ModelConfig(
        3, XceptionConfig(ENTRY, 1, 16, "after-relu", stem=(4, 8), exit=EXIT),
        DPCConfig((-1, 0), ((1, 6), (3, 2)), 8), DecoderConfig(8, 8, "separable-norm-relu", 2),
    ),
    "Xception, pre-activation": ModelConfig(
        3, XceptionConfig(ENTRY, 1, 8, "before-relu", pre_activation=True, stem=(4, 8), exit=EXIT),
        ASPPConfig((2,), 8), DecoderConfig(8, 8),
    ),
    "MobileNetV2, TensorFlow's padding": ModelConfig(
        3,
        MobileNetV2Config(
            ((1, 8, 1, 1), (6, 8, 2, 2), (6, 8, 2, 2), (6, 16, 1, 2), (6, 16, 1, 1), (6, 16, 1, 2)), 16,
            "after-strided-block", "expansion", None, stem=8, padding="same",
        ),
        ASPPConfig((), 8, refine=None),
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=CONFIGS)
def traced(request):
    model = randomize_statistics(build_model(CONFIGS[request.param], rngs=nnx.Rngs(0)))
    return model, trace(model)


def logits(model, images):
    return np.asarray(jax.jit(model.__call__)(images)).transpose(0, 3, 1, 2)


def test_graphs_equal_jax_at_any_size(traced):
    model, general = traced
    images = np.random.default_rng(0).normal(size=(3, 49, 81, 3)).astype(np.float32)
    expected = logits(model, images)
    for graph in (general, fix_size(general, (49, 81))):
        session = converter.open_session(finish(graph, {}))
        for batch in (1, 3):
            actual = converter.run(session, images[:batch])
            # Float32 sums in another order.
            assert np.abs(actual - expected[:batch]).max() <= 1e-5 * np.abs(expected).max()
            assert (actual.argmax(1) == expected[:batch].argmax(1)).mean() >= 0.9999


def test_graphs_hold_what_an_expert_would_write(traced):
    model, general = traced
    convolutions = {
        ".".join(map(str, path)) for path, module in nnx.iter_modules(model) if isinstance(module, Conv)
    } - {"aux_head"}
    for graph, shapes in ((general, 1), (fix_size(general, (49, 81)), 0)):
        proto = finish(graph, {})
        census = Counter(node.op_type for node in proto.graph.node)
        assert not {*census} - {
            *("Conv", "Relu", "Clip", "Add", "Concat", "MaxPool", "GlobalAveragePool", "Resize"),
            *(("Shape",) if shapes else ()),
            *(("BatchNormalization",) if "pre_activation=True" in repr(model.config) else ()),
        }
        assert {node.name for node in proto.graph.node if node.op_type == "Conv"} == convolutions
        assert census["Conv"] == len(convolutions)
        names = [node.name for node in proto.graph.node]
        assert len({*names}) == len(names)
        assert all(node.output[0] in (node.name, "logits") for node in proto.graph.node)
        assert {value.name for value in proto.graph.value_info} == {*names} - {proto.graph.node[-1].name}


def test_lower_precision_takes_any_size(traced, capfd):
    """ONNX Runtime turns quantized graphs to NHWC, the Resize nodes and what gives their sizes among them."""
    _, general = traced
    graph = finish(general, {})
    images = np.random.default_rng(0).normal(size=(2, 49, 81, 3)).astype(np.float32)
    expected = converter.run(converter.open_session(graph), images)
    for reduced, closeness, for_tensorrt in (
        (precision.to_float16(graph, planes(images)), 0.9999, True),
        (precision.to_int8(graph, planes(images)), 0.95, False),  # untrained, so no range is used well
        (precision.to_int8(graph, planes(images), symmetric=True), 0.85, True),
    ):
        assert not (for_tensorrt and faults(reduced))
        session = converter.open_session(reduced, exact=for_tensorrt)
        actual = converter.run(session, images)
        assert closeness < np.corrcoef(actual.ravel(), expected.ravel())[0, 1] < 1
        assert converter.run(session, images[:, :1, :33]).shape == (2, expected.shape[1], 1, 33)
        assert {value.name for value in reduced.graph.value_info} == {
            name for node in reduced.graph.node for name in node.output
        } - {"logits"}
        assert (reduced.producer_name, list(reduced.metadata_props)) == ("deeplab_jax", [])
    assert "warn" not in capfd.readouterr().err.lower()


def planes(images):
    """One network input an image, as ranges are taken from."""
    return [image[None].transpose(0, 3, 1, 2) for image in images]


def test_eight_bits_are_the_same_on_every_cpu(traced, monkeypatch):
    """Every convolution is exact here, and would be on x86 without VNNI, where two products are added in 16 bits."""
    graph = finish(traced[1], {})
    images = planes(np.random.default_rng(0).normal(size=(2, 49, 81, 3)).astype(np.float32))
    reduced = precision.to_int8(graph, images)
    convolutions, tensors = integer_convolutions(reduced.graph), tensors_of_8_bits(reduced, images[0])
    assert {*convolutions} == {node.name for node in graph.graph.node if node.op_type == "Conv"} - {"classifier"}
    for convolution in convolutions.values():
        least, largest = convolution.extreme_pairs()
        assert INT16.min <= least <= 0 <= largest <= INT16.max  # whatever the image
        sums = convolution.sums(tensors[convolution.input])
        np.testing.assert_array_equal(convolution.sums(tensors[convolution.input], saturating=True), sums)
        np.testing.assert_array_equal(tensors[convolution.output], convolution.quantize(sums))

    quantize = precision.quantization.quantize_static
    monkeypatch.setattr(
        precision.quantization, "quantize_static", lambda *a, **b: quantize(*a, **b | {"reduce_range": False})
    )
    convolutions = integer_convolutions(precision.to_int8(graph, images).graph).values()  # weights of 8 bits
    assert any(convolution.extreme_pairs()[1] > INT16.max for convolution in convolutions)
    assert any(
        (convolution.sums(values, saturating=True) != convolution.sums(values)).any()
        for convolution in convolutions
        for values in [tensors[convolution.input]]
    )


def tensors_of_8_bits(graph, planes):
    """By name: what ONNX Runtime's kernels on this CPU read and write."""
    names = [node.output[0] for node in graph.graph.node if node.op_type == "QuantizeLinear"]
    probe = onnx.ModelProto()
    probe.CopyFrom(graph)
    probe.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    return dict(zip(names, converter.open_session(probe).run(names, {"images": planes}), strict=True))


@pytest.mark.slow
def test_layers_of_equal_weights_are_told_apart():
    """By the order in which they run. All BatchNorms of a new model are equal, and here its convolutions too."""
    model = build_model(CONFIGS["ResNet that strides last, V3"], rngs=nnx.Rngs(0))
    model.eval()
    for _, module in nnx.iter_modules(model):
        if isinstance(module, Conv):
            module.kernel[...] = np.full_like(module.kernel[...], 0.01)
    images = np.random.default_rng(0).normal(size=(1, 49, 65, 3)).astype(np.float32)
    assert first_difference(model, finish(trace(model), {}), images, 1e-4) == "the last upsampling"  # none before it


def test_tensorrt_takes_the_graphs(traced):
    _, general = traced
    assert faults(finish(general, {})) == faults(finish(fix_size(general, (49, 81)), {})) == []


def test_loading_prints_no_warning(traced, capfd):
    _, general = traced
    converter.open_session(finish(general, {}))
    converter.open_session(finish(fix_size(general, (49, 81)), {}))
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_tracing_again_gives_the_same_file(traced):
    model, general = traced
    assert finish(trace(model), {}) == finish(general, {})


def spoil(name):
    """A tracer that changes one convolution."""

    def trace_wrongly(model):
        traced = trace(model)
        weight = next(node for node in traced.graph if node.name == name).inputs[1]
        weight.const_value = converter_tensor(weight.const_value.numpy() * 1.01)
        return traced

    return trace_wrongly


def converter_tensor(array):
    import onnx_ir

    return onnx_ir.tensor(array)


@pytest.mark.parametrize("layer", ["encoder.stage2.0.conv2", "aspp.refine.conv.depthwise", "classifier"])
def test_a_difference_from_jax_is_refused_and_its_first_layer_named(tiny_package, tmp_path, monkeypatch, layer):
    monkeypatch.setattr("converters.export.onnx_graph.trace.trace", spoil(layer))
    with pytest.raises(InputError, match=f"differs from JAX by .* at batch 1 and 97x161, first in {layer}; nothing"):
        converter.export(tiny_package, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def changed(package, folder, change):
    """The package with a change of its classifier, which runs last."""
    model = converter.read_source(package).model
    change(model.classifier)
    old = read_package(package)
    jax_weights.save(folder, model, old.classes, old.preprocess)
    return folder


def test_logits_that_are_all_zero_are_equal(tiny_package, tmp_path):
    def clear(layer):
        layer.kernel[...], layer.bias[...] = 0 * layer.kernel[...], 0 * layer.bias[...]

    assert converter.export(changed(tiny_package, tmp_path / "zero", clear), tmp_path / "out") == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_logits_that_are_not_finite_are_the_models_fault(tiny_package, tmp_path, value):
    def spoil_kernel(layer):
        layer.kernel[...] = jax.numpy.full_like(layer.kernel[...], value)

    source = changed(tiny_package, tmp_path / "spoiled", spoil_kernel)
    with pytest.raises(InputError, match="model's own logits are not finite, first in classifier: its weights"):
        converter.export(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_layers_are_recorded_by_path(tiny_package):
    model = converter.read_source(tiny_package).model
    images = np.random.default_rng(0).normal(size=(1, 49, 65, 3)).astype(np.float32)
    outputs = layer_outputs(model, lambda model, x: model(x), images)
    stem = model.encoder.stem.convs[0]
    np.testing.assert_allclose(outputs["encoder.stem.convs.0.norm"], stem(jax.numpy.asarray(images)), atol=1e-5)
    assert len(outputs) == sum(
        isinstance(module, (Conv, nnx.BatchNorm)) and path[0] != "aux_head" for path, module in nnx.iter_modules(model)
    )


def test_more_than_rgb_is_traced_too():
    config = replace(CONFIGS["ResNet, V3+"], encoder=replace(CONFIGS["ResNet, V3+"].encoder, in_channels=5))
    model = randomize_statistics(build_model(config, rngs=nnx.Rngs(0)))
    images = np.random.default_rng(0).normal(size=(1, 49, 81, 5)).astype(np.float32)
    actual = converter.run(converter.open_session(finish(trace(model), {})), images)
    expected = logits(model, images)
    assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()
