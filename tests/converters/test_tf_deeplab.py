"""Against outputs of Google's original code: for name-seeded weights, and for real trained ones."""

import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from converters import convert, tf_deeplab, tf_dilations
from deeplab_jax.errors import InputError
from deeplab_jax.image.preprocess import preprocess
from deeplab_jax.model_config import ModelConfig
from deeplab_jax.models import presets
from helpers.fixtures import SHARED, blank_model

REFERENCE = SHARED / "facts" / "tf_reference"
WEIGHTS = SHARED / "weights"

# Each sees what the others cannot: ASPP rates need a large map, SAME padding an even size. All cases, and the dense
# prediction cell: experiments/checks/parity.py.
CASES = {
    "xception_65_os16_321x321": presets.tf_deeplab("xception_65", 21, 16),
    "resnet_v1_50_beta_os16_128x128": presets.tf_deeplab("resnet_v1_50_beta", 21, 16),
    "mobilenet_v2_os16_128x128": presets.tf_deeplab("mobilenet_v2", 21, 16, atrous_rates=(), decoder=False),
}


@pytest.fixture(scope="module")
def seeded_weights():
    if not REFERENCE.is_dir():
        pytest.skip(reason="the reference outputs of TensorFlow are not here")
    sys.path.insert(0, str(REFERENCE))
    import seeded_weights

    sys.path.remove(str(REFERENCE))
    return seeded_weights


def seeded_variables(seeded_weights, case: str) -> dict[str, np.ndarray]:
    lines = (REFERENCE / f"{case}_variables.txt").read_text().splitlines()
    shapes = dict(line.split("\t") for line in lines)
    return {name: seeded_weights.seeded(name, tuple(map(int, shape.split(",")))) for name, shape in shapes.items()}


def coarse_logits(model, images: np.ndarray) -> np.ndarray:
    """Before the last upsampling."""
    return np.asarray(nnx.jit(lambda model, images: model.head(model.encoder(images), None))(model, images))


@pytest.mark.parametrize(
    "case", [pytest.param(name, marks=pytest.mark.slow) if "65" in name or "beta" in name else name for name in CASES]
)
def test_logits_of_the_original_code_and_the_same_variables_back(seeded_weights, case):
    config = CASES[case]
    variables = seeded_variables(seeded_weights, case)
    assert tf_deeplab.infer_config(variables, output_stride=16) == config
    model = tf_deeplab.from_variables(variables, config)
    with np.load(REFERENCE / f"{case}.npz") as reference:
        batch, height, width, _ = reference["input_shape"]
        images = seeded_weights.seeded_input(height, width, batch)
        # TensorFlow's own two kernels differ by 1e-6 on these; a wrong constant shows as 2e-2 and more.
        np.testing.assert_allclose(coarse_logits(model, images), reference["logits"], atol=2e-5)
        full = jax.jit(lambda images: model(images))(images)[:, ::16, ::16]
        np.testing.assert_allclose(full, reference["logits_full_slice"], atol=2e-5)
    back = tf_deeplab.to_variables(model)
    assert set(back) == set(variables)
    assert all(np.array_equal(back[name], array) for name, array in variables.items())


@pytest.fixture(scope="module")
def mobilenet_variables(seeded_weights):
    return seeded_variables(seeded_weights, "mobilenet_v2_os16_128x128")


def test_architecture_is_read_off_the_variables(seeded_weights):
    def infer(case: str, output_stride: int = 16) -> ModelConfig:
        return tf_deeplab.infer_config(seeded_variables(seeded_weights, case), output_stride)

    dpc = presets.tf_deeplab("xception_71", 21, 16, dense_prediction_cell=True)
    assert infer("xception_71_dpc_os16_129x129") == dpc
    plain = presets.tf_deeplab("resnet_v1_50_beta", 21, 16, separable=False)
    assert infer("resnet_v1_50_beta_plainconv_os16_129x129") == plain
    assert infer("resnet_v1_50_os16_129x129") == presets.tf_deeplab("resnet_v1_50", 21, 16)
    thin = presets.tf_deeplab("mobilenet_v2", 21, 8, atrous_rates=(), decoder=False, depth_multiplier=0.5)
    assert infer("mobilenet_v2_dm05_os16_129x129", 8) == thin


@pytest.mark.slow
@pytest.mark.parametrize("multiplier", [0.35, 1.4])
def test_depth_multipliers_are_read_off_rounded_widths(multiplier):
    """1.4 x 32 is 44.8: the stem has 45 channels, as research/deeplab rounds, and not a multiple of 8."""
    config = presets.tf_deeplab("mobilenet_v2", 3, 8, atrous_rates=(), decoder=False, depth_multiplier=multiplier)
    assert config.encoder.stem == {0.35: 11, 1.4: 45}[multiplier]
    assert tf_deeplab.infer_config(tf_deeplab.to_variables(blank_model(config)), 8) == config


def test_models_that_the_original_does_not_build_are_refused():
    config = presets.tf_deeplab("resnet_v1_50_beta", 2, multi_grid=(1, 1, 1))
    assert tf_deeplab.model_variant(config) == "resnet_v1_50_beta"
    others = [
        replace(config, align_corners=False),
        replace(config, encoder=replace(config.encoder, epsilon=1e-3)),
        replace(config, aspp=replace(config.aspp, pool_first=False)),
        replace(config, encoder=replace(config.encoder, low_level="stage")),
        presets.smp_deeplabv3plus("resnet50", 2),
    ]
    for other in others:
        with pytest.raises(InputError, match="research/deeplab builds no such model"):
            tf_deeplab.model_variant(other)
    assert tf_deeplab.model_variant(replace(config, aspp=replace(config.aspp, dropout=0.3))) == "resnet_v1_50_beta"


def graph_rates(block3, block4, more=()):
    unit = "resnet_v1_50/block{}/unit_{}/bottleneck_v1/conv{}/Conv2D"
    rates = {unit.format(3, u, 2): (block3, block3) for u in (1, 2)}
    rates |= {unit.format(4, u, 2): (rate, rate) for u, rate in enumerate(block4, 1)}
    rates |= {unit.format(b, u, 1): (1, 1) for b in (3, 4) for u in (1, 2)}
    return rates | dict(more)


def test_dilations_of_a_frozen_graph_are_read_off():
    aspp = {f"aspp{i}_depthwise/depthwise": (rate, rate) for i, rate in enumerate((1, 6, 12), 1)}
    aspp |= {"aspp0/Conv2D": (1, 1), "aspp1_pointwise/Conv2D": (1, 1)}
    assert tf_dilations.recorded(graph_rates(2, (4, 8, 16), aspp)) == tf_dilations.Dilations(8, (1, 6, 12), (1, 2, 4))
    assert tf_dilations.recorded(graph_rates(1, (4, 4, 4))) == tf_dilations.Dilations(16, None, (2, 2, 2))
    with pytest.raises(InputError, match="not those of output stride 8 or 16"):
        tf_dilations.recorded(graph_rates(1, (1, 2, 4)))

    unit = "xception_65/{}/unit_1/xception_module/separable_conv{}_depthwise/depthwise"
    plain = {unit.format("middle_flow/block1", i): (1, 1) for i in (1, 2, 3)}
    plain |= {unit.format("exit_flow/block2", i): (2, 2) for i in (1, 2, 3)}
    assert tf_dilations.recorded(plain) == tf_dilations.Dilations(16, None, (1, 1, 1))
    unit = "MobilenetV2/expanded_conv_{}/{}"
    mobile = {unit.format(13, "depthwise/depthwise"): (2, 2), unit.format(16, "depthwise/depthwise"): (4, 4)}
    assert tf_dilations.recorded(mobile | {unit.format(16, "expand/Conv2D"): (1, 1)}) == tf_dilations.Dilations(8)

    cell = presets.tf_deeplab("xception_65", dense_prediction_cell=True).aspp
    branches = {f"meta_architecture/branch{i}_depthwise/depthwise": pair for i, pair in enumerate(cell.atrous_rates)}
    actual = tf_dilations.recorded(branches | {"meta_architecture/branch0_pointwise/Conv2D": (1, 1)}).cell
    assert actual == cell.atrous_rates
    tf_dilations.check_cell(cell, actual)
    with pytest.raises(InputError, match=r"only the published .* are known"):
        tf_dilations.check_cell(cell, ((3, 3), *actual[1:]))


def test_a_wrong_number_of_rates_is_one_line():
    variables = tf_deeplab.to_variables(blank_model(presets.tf_deeplab("mobilenet_v2", 2, 8, depth_multiplier=0.35)))
    with pytest.raises(InputError, match=r"the weights have 3 atrous branches; give as many rates .*, not 6, 12$"):
        tf_deeplab.infer_config(variables, 8, (6, 12))


def test_padding_is_zero_for_the_network():
    for variant in ("resnet_v1_50", "xception_65"):
        config = tf_deeplab.preprocessing(presets.tf_deeplab(variant), (65, 65))
        padded, placement = preprocess(np.zeros((8, 8, 3), np.uint8), config)
        assert (placement.height, placement.width) == (8, 8)
        np.testing.assert_allclose(padded[:, 10:], 0, atol=1e-4)  # of values that reach 123


def test_other_variables_are_refused(mobilenet_variables):
    renamed = {name.replace("MobilenetV2", "MobilenetV3"): array for name, array in mobilenet_variables.items()}
    with pytest.raises(InputError, match=r"belong to none of the encoders .*their scopes are MobilenetV3"):
        tf_deeplab.infer_config(renamed)
    del mobilenet_variables["logits/semantic/weights"]
    with pytest.raises(InputError, match="logits/semantic/weights is missing"):
        tf_deeplab.infer_config(mobilenet_variables)


def real(name: str) -> Path:
    if not WEIGHTS.is_dir():
        pytest.skip(reason="the trained weights are not here")
    return WEIGHTS / name


def test_real_checkpoint():
    folder = real("tf_deeplabv3_mnv2_voc")
    converted = convert.convert("tf", folder / "model.ckpt-30000", convert.Options())
    assert converted.class_names[12] == "dog"
    voc = SHARED / "data" / "voc2012_sample" / "VOCdevkit" / "VOC2012" / "JPEGImages"
    with np.load(folder / "reference_outputs.npz") as reference:
        for name, path in {
            "bird": folder / "bird_segmentation.bmp",
            "2007_000032": voc / "2007_000032.jpg",
            "2007_000039": voc / "2007_000039.jpg",
        }.items():
            image = np.array(Image.open(path).convert("RGB"))[..., ::-1]
            logits = coarse_logits(converted.model, preprocess(image, converted.preprocess)[0].transpose(1, 2, 0)[None])
            # Logits reach 26; 1e-3 leaves room for JPEG decoders.
            np.testing.assert_allclose(logits[0], reference[f"{name}/logits_65x65"], atol=1e-3)


@pytest.mark.slow
def test_real_frozen_graph():
    folder = real("tf_frozen_mnv2_dm05_portrait")
    converted = convert.convert("tf", folder / "frozen_inference_graph.pb", convert.Options())
    with np.load(folder / "reference_outputs.npz") as reference:
        images = preprocess(reference["image"][..., ::-1], converted.preprocess)[0].transpose(1, 2, 0)[None]
        np.testing.assert_allclose(coarse_logits(converted.model, images), reference["logits"], atol=1e-3)
