"""ImageNet classifiers of timm and torchvision as encoders."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from converters import timm
from deeplab_jax.errors import InputError
from deeplab_jax.models import presets
from helpers.fixtures import blank_model, randomize_torch

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'deeplab_jax[port]'")
other = pytest.importorskip("timm")
vision = pytest.importorskip("torchvision.models")


def classifier(name: str):
    torch.manual_seed(0)
    if name == "mobilenet_v2":
        model = vision.mobilenet_v2(weights=None)
        return randomize_torch(model), model.features
    model = other.create_model(name, pretrained=False)
    return randomize_torch(model), model.forward_features


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "xception41", "mobilenet_v2"])
def test_last_feature_map_equals_the_classifiers(name):
    model, features = classifier(name)
    state_dict = model.state_dict()
    encoder = timm.infer_encoder(state_dict)
    assert encoder.removeprefix("tu-") == name
    config = presets.smp_deeplabv3(encoder, 21)
    own = blank_model(replace(config, encoder=replace(config.encoder, output_stride=32)))
    head = np.asarray(own.classifier.kernel[...])
    left = timm.load_encoder(own, state_dict)
    own.eval()
    assert left == [n for n in state_dict if n.startswith(("fc.", "head.fc.", "classifier."))] != []
    np.testing.assert_array_equal(own.classifier.kernel[...], head)

    images = np.random.default_rng(0).normal(size=(2, 97, 65, 3)).astype(np.float32)
    with torch.inference_mode():
        expected = features(torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    actual = jax.jit(lambda images: own.encoder(images).high_level)(images)
    # Float32 sums in another order.
    assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()

    back = timm.encoder_state_dict(own)
    assert set(back) == set(state_dict) - set(left)
    assert all(np.array_equal(back[n], state_dict[n].numpy()) for n in back)


def test_other_classifiers_are_refused():
    with pytest.raises(InputError, match="not weights of a ResNet, ResNeXt or Xception"):
        timm.infer_encoder(vision.squeezenet1_1(weights=None).state_dict())
    model = blank_model(presets.smp_deeplabv3("tu-resnet18", 21))
    with pytest.raises(InputError, match="do not fit"):
        timm.load_encoder(model, vision.resnet34(weights=None).state_dict())
