"""Against the real segmentation_models_pytorch, with random weights and random BatchNorm statistics.

Every encoder, architecture and output stride is in experiments/checks/parity.py; here are some drawn from them.
"""

import itertools
import random

import jax
import numpy as np
import pytest
from flax import nnx

from converters import smp
from deeplab_jax.errors import InputError
from deeplab_jax.models import presets
from helpers.fixtures import random_smp

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'deeplab_jax[port]'")
other = pytest.importorskip("segmentation_models_pytorch")

PRESETS = smp.PRESETS
MATRIX = list(itertools.product(presets.SMP_ENCODERS, PRESETS, [8, 16]))
# This seed draws every family, both dilation rules, both architectures and both strides.
SAMPLE = random.Random(157).sample(MATRIX, 8)
QUICK = ("resnet18", "mobilenet_v2")


@pytest.mark.parametrize(
    ("encoder", "architecture", "output_stride"),
    [case if case[0] in QUICK else pytest.param(*case, marks=pytest.mark.slow) for case in SAMPLE],
)
def test_same_logits_and_the_same_weights_back(encoder, architecture, output_stride):
    model = random_smp(architecture, encoder, output_stride)
    state_dict = model.state_dict()
    config = PRESETS[architecture](encoder, 21, output_stride)
    assert smp.infer_config(state_dict, output_stride=output_stride) == config
    own = smp.from_state_dict(state_dict, config)
    assert sum(p.numel() for p in model.parameters()) == sum(p.size for p in jax.tree.leaves(nnx.state(own, nnx.Param)))

    images = np.random.default_rng(0).normal(size=(2, 96, 160, 3)).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    actual = np.asarray(nnx.jit(lambda model, images: model(images))(own, images))
    # Float32 sums in another order differ by some 2e-6 here; 1e-4 would show any wrong constant.
    assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()
    assert (actual.argmax(-1) == expected.argmax(-1)).mean() >= 0.9999

    back = smp.to_state_dict(own)
    fresh = getattr(other, architecture)(encoder, encoder_weights=None, classes=21)
    fresh.load_state_dict({name: torch.from_numpy(array) for name, array in back.items()}, strict=True)
    for name, tensor in state_dict.items():
        assert np.array_equal(tensor.numpy(), back[name]), name


def test_infers_other_decoders():
    model = other.DeepLabV3Plus(
        "resnet18", encoder_weights=None, classes=3, in_channels=4, decoder_channels=64, decoder_aspp_separable=False
    )
    config = smp.infer_config(model.state_dict())
    assert config == presets.smp_deeplabv3plus(
        "resnet18", 3, in_channels=4, decoder_channels=64, decoder_aspp_separable=False
    )
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 4)).astype(np.float32)
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    actual = nnx.jit(lambda model, images: model(images))(smp.from_state_dict(model.state_dict(), config), images)
    assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()


def test_every_fault_is_listed_in_one_error():
    state_dict = random_smp("DeepLabV3Plus", "resnet18", 16).state_dict()
    config = presets.smp_deeplabv3plus("resnet18", 21)
    state_dict["encoder.fc.weight"] = torch.zeros(3)
    del state_dict["encoder.bn1.running_var"]
    state_dict["segmentation_head.0.bias"] = torch.zeros(5)
    with pytest.raises(InputError) as error:
        smp.from_state_dict(state_dict, config)
    message = str(error.value)
    assert "1 missing (encoder.bn1.running_var)" in message
    assert "1 unexpected (encoder.fc.weight)" in message
    assert "1 misshapen (segmentation_head.0.bias (5,) instead of (21,))" in message


@pytest.mark.parametrize(
    ("preset", "encoder", "classes"),
    [("DeepLabV3Plus", "resnet34", 21), ("DeepLabV3Plus", "resnet18", 20), ("DeepLabV3", "resnet18", 21)],
)
def test_weights_of_another_model_are_refused(preset, encoder, classes):
    state_dict = random_smp("DeepLabV3Plus", "resnet18", 16).state_dict()
    with pytest.raises(InputError, match="do not fit the model"):
        smp.from_state_dict(state_dict, PRESETS[preset](encoder, classes))
