"""Layers against PyTorch's, and properties that hold at any size."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deeplab_jax.errors import InputError
from deeplab_jax.models import ASPPConfig, DPCConfig, ResNetConfig, XceptionConfig, build_model, presets
from deeplab_jax.models.deeplab import ENCODERS
from deeplab_jax.models.encoders.resnet import plan
from deeplab_jax.models.encoders.xception import Xception
from deeplab_jax.models.layers import Conv, ConvNorm, DepthwiseConv, interpolation_matrix, max_pool, resize_bilinear


def image(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    ("before", "after"), [((5, 7), (20, 28)), ((1, 1), (9, 4)), ((6, 4), (23, 4)), ((7, 9), (1, 1))]
)
def test_resize_equals_torch(before, after, align_corners):
    torch = pytest.importorskip("torch")
    if after == (1, 1) and not align_corners:
        pytest.skip(reason="half-pixel shrinking to one pixel is no upsampling")
    x = image(2, *before, 3)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(x).permute(0, 3, 1, 2), after, mode="bilinear", align_corners=align_corners
    )
    actual = resize_bilinear(jnp.asarray(x), after, align_corners=align_corners)
    # Torch computes positions in float32, we in float64.
    np.testing.assert_allclose(actual, expected.permute(0, 2, 3, 1), atol=2e-6)


def test_interpolation_weights_sum_to_one():
    for align_corners in (True, False):
        np.testing.assert_allclose(interpolation_matrix(13, 50, align_corners).sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (1, 1), (2, 3)])
def test_max_pool_equals_torch(size):
    torch = pytest.importorskip("torch")
    x = image(2, *size, 3)
    expected = torch.nn.functional.max_pool2d(torch.from_numpy(x).permute(0, 3, 1, 2), 3, 2, 1)
    np.testing.assert_array_equal(max_pool(jnp.asarray(x)), expected.permute(0, 2, 3, 1))


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 4), (1, 12)])
def test_depthwise_forms_agree_forward_and_backward(stride, dilation):
    layer = DepthwiseConv(4, stride=stride, dilation=dilation, rngs=nnx.Rngs(0))
    x = jnp.asarray(image(2, 9, 14, 4))

    def run(form):
        layer.form = form
        graph, state = nnx.split(layer)
        loss = lambda state, x: (nnx.merge(graph, state)(x) ** 2).sum()  # noqa: E731
        return layer(x), jax.grad(loss, (0, 1))(state, x)

    assert "convolution" not in jax.jit(layer).lower(x).as_text()  # for CPUs
    for actual, expected in zip(jax.tree.leaves(run("auto")), jax.tree.leaves(run("conv")), strict=True):
        np.testing.assert_allclose(actual, expected, atol=2e-5, rtol=1e-5)


def test_dilation_rules():
    """Stride 8: stage 3 dilates by 2, stage 4 by 4; the rules differ in the first block alone."""
    blocks = (1, 2, 2, 2)
    whole = plan(ResNetConfig(blocks, True, 8, "whole-stage"))
    after = plan(ResNetConfig(blocks, True, 8, "after-strided-block"))
    assert whole[1:] == [[(2, 1, 1), (1, 1, 1)], [(1, 2, 2), (1, 2, 2)], [(1, 4, 4), (1, 4, 4)]]
    assert after[1:] == [[(2, 1, 1), (1, 1, 1)], [(1, 1, 2), (1, 2, 2)], [(1, 2, 4), (1, 4, 4)]]


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (47, 50)])
@pytest.mark.parametrize("plus", [True, False])
def test_any_input_size(tiny_config, size, plus):
    config = tiny_config if plus else replace(tiny_config, decoder=None)
    model = build_model(config, rngs=nnx.Rngs(0))
    model.eval()
    logits = nnx.jit(lambda model, x: model(x))(model, image(3, *size, 3))
    assert logits.shape == (3, *size, config.num_classes)
    assert np.isfinite(logits).all()


@pytest.mark.parametrize(
    ("encoder", "output_stride"),
    [
        ("resnet34", 32),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("resnext50_32x4d", 8),
                ("mobilenet_v2", 32),
                ("mobilenet_v2", 8),
                ("tu-xception41", 32),
                ("tu-xception41p", 16),
            )
        ),
    ],
)
def test_strides_and_channels_of_encoders(encoder, output_stride):
    """ceil(n / stride) at odd sizes, and the channels that the decoder and the heads are built for."""
    config = replace(presets.SMP_ENCODERS[encoder], output_stride=output_stride, in_channels=4)
    model = nnx.eval_shape(lambda: ENCODERS[type(config)](config, rngs=nnx.Rngs(0)))
    features = nnx.eval_shape(lambda model, x: model(x), model, jax.ShapeDtypeStruct((2, 97, 161, 4), jnp.float32))
    assert tuple(f.shape[-1] for f in features) == model.channels
    for feature, stride in zip(features[::2], (4, output_stride), strict=True):
        assert feature.shape[:3] == (2, -(-97 // stride), -(-161 // stride))


@pytest.mark.parametrize(("keeps", "projects"), [(True, [True, True, True]), (False, [True, True, False])])
def test_shortcut_of_a_unit_whose_stride_was_replaced(keeps, projects):
    """TensorFlow's Xception-71 keeps its projection at stride 8, where timm's has none."""
    entry = ((4, 2), (8, 2), (8, 2))
    config = XceptionConfig(entry, 1, 8, "after-relu", keeps_projections=keeps, exit=((8, 8, 8), (8, 8, 8)))
    encoder = nnx.eval_shape(lambda: Xception(config, rngs=nnx.Rngs(0)))
    assert [isinstance(block.shortcut, ConvNorm) for block in encoder.blocks[:3]] == projects


def test_multi_grid_multiplies_the_last_stage():
    config = replace(presets.RESNETS["resnet50"], output_stride=16, multi_grid=(1, 2, 4))
    assert [steps.first for steps in plan(config)[-1]] == [1, 4, 8]  # the first block would have strided
    assert [steps.first for steps in plan(replace(config, dilation_rule="whole-stage"))[-1]] == [2, 4, 8]


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (1, 2)])
def test_same_padding_is_tensorflows(size):
    """A window of 3 with stride 2 begins at 0 where the size is even, at -1 where it is odd."""
    x = image(1, *size, 2)
    padded = np.pad(x, ((0, 0), (size[0] % 2, 1), (size[1] % 2, 1), (0, 0)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::2, ::2]
    np.testing.assert_array_equal(max_pool(jnp.asarray(x), "same"), windows.max((-1, -2)))

    conv = DepthwiseConv(2, stride=2, padding="same", rngs=nnx.Rngs(0))
    expected = np.einsum("bhwcij,ijc->bhwc", np.where(np.isinf(windows), 0, windows), conv.kernel[:, :, 0])
    for form in ("auto", "conv"):
        conv.form = form
        np.testing.assert_allclose(conv(jnp.asarray(x)), expected, atol=1e-5)  # float32 sums in another order


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (3, 2)])
def test_conv_forms_agree(kernel, stride):
    conv = Conv(3, 5, kernel, stride=stride, use_bias=True, rngs=nnx.Rngs(0))
    conv.bias[...] = jnp.arange(5.0)
    x = jnp.asarray(image(2, 9, 14, 3))
    actual = conv(x)
    conv.form = "conv"
    np.testing.assert_allclose(actual, conv(x), atol=1e-5)  # float32 sums in another order


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: replace(presets.RESNETS["resnet50"], multi_grid=(1, 2)), r"multi_grid=\(1, 2\) must hold a factor"),
        (lambda: replace(presets.XCEPTIONS["xception41"], entry=((64, 2),)), "must stride by 2 three times"),
        (lambda: replace(presets.MOBILENET_V2, in_channels=0), "in_channels=0 must be at least 1"),
        (lambda: replace(presets.RESNETS["resnet50"], multi_grid=(0, 1, 1)), "multi_grid=.* must be 1 to"),
        (lambda: replace(presets.RESNETS["resnet18"], groups=32), "groups=32 needs bottleneck blocks"),
        (lambda: replace(presets.MOBILENET_V2, head=-3), "head=.* must be 1 to"),
        (lambda: ASPPConfig(atrous_rates=(10**8,)), "rates=.* must be 1 to"),
        (lambda: ASPPConfig(epsilon=-1.0), "epsilon=-1.0 must be positive"),
        (lambda: DPCConfig((0,), ((1, 1),)), "must name the encoder, -1, or earlier branches"),
        (lambda: presets.tf_deeplab("mobilenet_v2", depth_multiplier=0.0), "depth_multiplier=0.0 must be 0.1 to 4"),
    ],
)
def test_impossible_architectures_name_the_fault(change, message):
    with pytest.raises(InputError, match=message):
        change()


def test_presets_name_the_fix():
    with pytest.raises(ValueError, match="encoder 'resnet19' is not known; choose one of resnet18, resnet34, resnet50"):
        presets.smp_deeplabv3("resnet19")
    with pytest.raises(ValueError, match="encoder_output_stride=4 is not possible; choose 8 or 16"):
        presets.smp_deeplabv3("resnet18", encoder_output_stride=4)
