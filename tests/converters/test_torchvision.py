"""Against the real torchvision, with random weights and random BatchNorm statistics, at odd sizes."""

import numpy as np
import pytest
from flax import nnx

from converters import torchvision
from deeplab_jax.errors import InputError
from deeplab_jax.models import presets
from helpers.fixtures import randomize_torch

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'deeplab_jax[port]'")
segmentation = pytest.importorskip("torchvision.models.segmentation")


def random_torchvision(backbone: str, aux: bool = True):
    torch.manual_seed(0)
    build = getattr(segmentation, f"deeplabv3_{backbone}")
    return randomize_torch(build(weights=None, weights_backbone=None, num_classes=21, aux_loss=aux))


@pytest.mark.parametrize("backbone", ["resnet50", pytest.param("resnet101", marks=pytest.mark.slow)])
def test_both_outputs_equal_and_the_same_weights_back(backbone):
    model = random_torchvision(backbone)
    state_dict = model.state_dict()
    config = torchvision.infer_config(state_dict)
    assert config == presets.torchvision_deeplabv3(backbone, 21, aux_loss=True)
    own = torchvision.from_state_dict(state_dict, config)
    images = np.random.default_rng(0).normal(size=(2, 97, 161, 3)).astype(np.float32)
    with torch.inference_mode():
        expected = model(torch.from_numpy(images).permute(0, 3, 1, 2))
    actual = nnx.jit(lambda model, images: model.with_auxiliary(images))(own, images)
    for logits, name in zip(actual, ("out", "aux"), strict=True):
        other = expected[name].permute(0, 2, 3, 1).numpy()
        # Float32 sums in another order differ by some 4e-6 here; 1e-4 would show any wrong constant.
        assert np.abs(logits - other).max() <= 1e-4 * np.abs(other).max(), name

    back = {name: torch.from_numpy(array) for name, array in torchvision.to_state_dict(own).items()}
    random_torchvision(backbone).load_state_dict(back, strict=True)
    assert all(torch.equal(back[name], tensor) for name, tensor in state_dict.items() if "num_b" not in name)


def test_without_auxiliary_head():
    state_dict = random_torchvision("resnet50", aux=False).state_dict()
    config = torchvision.infer_config(state_dict)
    assert config.aux_head is None
    assert torchvision.from_state_dict(state_dict, config).aux_head is None


def test_other_weights_are_refused():
    with pytest.raises(InputError, match="not the weights of torchvision's deeplabv3_resnet50"):
        torchvision.infer_config(segmentation.deeplabv3_mobilenet_v3_large(weights_backbone=None).state_dict())
    with pytest.raises(InputError, match="torchvision builds no such model"):
        torchvision.from_state_dict({}, presets.smp_deeplabv3("resnet50", 21))


def test_an_auxiliary_head_for_other_classes_is_left_aside():
    """As fine-tuning leaves it that replaces the classifier alone."""
    weights = {
        "classifier.4.weight": np.zeros((2, 256, 1, 1)),
        "aux_classifier.4.weight": np.zeros((21, 256, 1, 1)),
        "aux_classifier.4.bias": np.zeros(21),
    }
    kept, left = torchvision.without_foreign_auxiliary(weights)
    assert list(kept) == ["classifier.4.weight"]
    assert left == ["aux_classifier.4.weight", "aux_classifier.4.bias"]
    same = weights | {"aux_classifier.4.weight": np.zeros((2, 256, 1, 1))}
    assert torchvision.without_foreign_auxiliary(same) == (same, [])
    with pytest.raises(InputError, match="not the weights of torchvision's"):
        torchvision.infer_config({"classifier.4.weight": np.array(1.0)})
