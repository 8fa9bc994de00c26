"""Layers against PyTorch's, and properties that hold at any size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deeplab_jax.models import EncoderConfig, build_model, presets
from deeplab_jax.models.layers import DepthwiseConv, interpolation_matrix, max_pool, resize_bilinear
from deeplab_jax.models.resnet import ResNet, dilation_plan


def picture(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    ("before", "after"), [((5, 7), (20, 28)), ((1, 1), (9, 4)), ((6, 4), (23, 4)), ((7, 9), (1, 1))]
)
def test_resize_equals_torch(before, after, align_corners):
    torch = pytest.importorskip("torch")
    if after == (1, 1) and not align_corners:
        pytest.skip(reason="half-pixel shrinking to one pixel is no upsampling")
    x = picture(2, *before, 3)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(x).permute(0, 3, 1, 2), after, mode="bilinear", align_corners=align_corners
    )
    found = resize_bilinear(jnp.asarray(x), after, align_corners=align_corners)
    # Torch computes positions in float32, we in float64.
    np.testing.assert_allclose(found, expected.permute(0, 2, 3, 1), atol=2e-6)


def test_interpolation_weights_sum_to_one():
    for align_corners in (True, False):
        np.testing.assert_allclose(interpolation_matrix(13, 50, align_corners).sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (1, 1), (2, 3)])
def test_max_pool_equals_torch(size):
    torch = pytest.importorskip("torch")
    x = picture(2, *size, 3)
    expected = torch.nn.functional.max_pool2d(torch.from_numpy(x).permute(0, 3, 1, 2), 3, 2, 1)
    np.testing.assert_array_equal(max_pool(jnp.asarray(x)), expected.permute(0, 2, 3, 1))


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 4), (1, 12)])
def test_depthwise_forms_agree_forward_and_backward(stride, dilation):
    layer = DepthwiseConv(4, stride=stride, dilation=dilation, rngs=nnx.Rngs(0))
    x = jnp.asarray(picture(2, 9, 14, 4))

    def run(form):
        layer.form = form
        graph, state = nnx.split(layer)
        loss = lambda state, x: (nnx.merge(graph, state)(x) ** 2).sum()  # noqa: E731
        return layer(x), jax.grad(loss, (0, 1))(state, x)

    assert "conv_general_dilated" not in jax.jit(lambda x: layer.shifted_sum(x)).lower(x).as_text()
    for found, expected in zip(jax.tree.leaves(run("auto")), jax.tree.leaves(run("conv")), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-5, rtol=1e-5)


def test_dilation_rules():
    """Stride 8: stage 3 dilates by 2, stage 4 by 4; the rules differ in the first block alone."""
    blocks = (1, 2, 2, 2)
    whole = dilation_plan(EncoderConfig(blocks, True, 8, "whole-stage"))
    after = dilation_plan(EncoderConfig(blocks, True, 8, "after-first-block"))
    assert whole[1:] == [[(2, 1, 1), (1, 1, 1)], [(1, 2, 2), (1, 2, 2)], [(1, 4, 4), (1, 4, 4)]]
    assert after[1:] == [[(2, 1, 1), (1, 1, 1)], [(1, 1, 2), (1, 2, 2)], [(1, 2, 4), (1, 4, 4)]]


@pytest.mark.parametrize("output_stride", [8, 16])
def test_after_first_block_equals_torchvision(output_stride):
    torch = pytest.importorskip("torch")
    from torchvision.models import resnet50

    from converters.rules import TORCH_LEAVES, rename
    from converters.smp import RESNET

    theirs = resnet50(weights=None, replace_stride_with_dilation=[False, output_stride == 8, True]).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    weights = theirs.state_dict()
    ours = ResNet(EncoderConfig((3, 4, 6, 3), True, output_stride, "after-first-block"), rngs=nnx.Rngs(0))
    ours.eval()
    for path, leaf in nnx.to_flat_state(nnx.state(ours, (nnx.Param, nnx.BatchStat))):
        module = rename("encoder." + ".".join(map(str, path[:-1])), RESNET).removeprefix("encoder.")
        array = weights[f"{module}.{TORCH_LEAVES[path[-1]]}"].numpy()
        leaf[...] = jnp.asarray(array.transpose(2, 3, 1, 0) if array.ndim == 4 else array)

    x = picture(2, 65, 97, 3)
    features = []
    hook = theirs.layer4.register_forward_hook(lambda _module, _inputs, output: features.append(output))
    with torch.no_grad():
        theirs(torch.from_numpy(x).permute(0, 3, 1, 2))
    hook.remove()
    expected = features[0].permute(0, 2, 3, 1).numpy()
    found = nnx.jit(lambda model, x: model(x)[-1])(ours, x)
    # Float32 sums in another order through 50 layers.
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (47, 50)])
@pytest.mark.parametrize("plus", [True, False])
def test_any_input_size(tiny_config, size, plus):
    from dataclasses import replace

    config = tiny_config if plus else replace(tiny_config, decoder=None)
    model = build_model(config, rngs=nnx.Rngs(0))
    model.eval()
    logits = nnx.jit(lambda model, x: model(x))(model, picture(3, *size, 3))
    assert logits.shape == (3, *size, config.num_classes)
    assert np.isfinite(logits).all()


def test_presets_name_the_fix():
    with pytest.raises(ValueError, match="encoder 'resnet19' is not known; choose one of resnet18, resnet34, resnet50"):
        presets.smp_deeplabv3("resnet19")
    with pytest.raises(ValueError, match="encoder_output_stride=4 is not possible; choose 8 or 16"):
        presets.smp_deeplabv3("resnet18", encoder_output_stride=4)
