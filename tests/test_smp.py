"""Against the real segmentation_models_pytorch, with random weights and random BatchNorm statistics."""

import itertools

import jax
import numpy as np
import pytest
from flax import nnx

from converters import smp
from converters.files import read_weights
from deeplab_jax.errors import InputError
from deeplab_jax.models import presets

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'deeplab_jax[port]'")
theirs = pytest.importorskip("segmentation_models_pytorch")

PRESETS = {"DeepLabV3": presets.smp_deeplabv3, "DeepLabV3Plus": presets.smp_deeplabv3plus}


def random_smp(architecture: str, encoder: str, output_stride: int, classes: int = 21, seed: int = 0):
    torch.manual_seed(seed)
    model = getattr(theirs, architecture)(
        encoder, encoder_weights=None, classes=classes, encoder_output_stride=output_stride
    )
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.1)
    return model.eval()


@pytest.mark.parametrize(
    ("encoder", "architecture", "output_stride"),
    list(itertools.product(["resnet18", "resnet34", "resnet50"], PRESETS, [8, 16])),
)
def test_same_logits_and_the_same_weights_back(encoder, architecture, output_stride):
    model = random_smp(architecture, encoder, output_stride)
    state_dict = model.state_dict()
    config = PRESETS[architecture](encoder, 21, output_stride)
    assert smp.infer_config(state_dict, output_stride=output_stride) == config
    ours = smp.from_state_dict(state_dict, config)
    assert sum(p.numel() for p in model.parameters()) == sum(
        p.size for p in jax.tree.leaves(nnx.state(ours, nnx.Param))
    )

    images = np.random.default_rng(0).normal(size=(3, 96, 160, 3)).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    found = np.asarray(nnx.jit(lambda model, images: model(images))(ours, images))
    # Float32 sums in another order differ by some 2e-6 here; 1e-4 would show any wrong constant.
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    assert (found.argmax(-1) == expected.argmax(-1)).mean() >= 0.9999

    back = smp.to_state_dict(ours)
    fresh = getattr(theirs, architecture)(encoder, encoder_weights=None, classes=21)
    fresh.load_state_dict({name: torch.from_numpy(array) for name, array in back.items()}, strict=True)
    for name, tensor in state_dict.items():
        assert np.array_equal(tensor.numpy(), back[name]), name


def test_infers_other_decoders():
    model = theirs.DeepLabV3Plus(
        "resnet18", encoder_weights=None, classes=3, in_channels=4, decoder_channels=64, decoder_aspp_separable=False
    )
    config = smp.infer_config(model.state_dict())
    assert config == presets.smp_deeplabv3plus(
        "resnet18", 3, in_channels=4, decoder_channels=64, decoder_aspp_separable=False
    )
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 4)).astype(np.float32)
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    found = nnx.jit(lambda model, images: model(images))(smp.from_state_dict(model.state_dict(), config), images)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


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


class Payload:
    """Pickles to a call that would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_files_that_hold_no_weights_are_refused_and_never_run(tmp_path):
    ran = tmp_path / "ran"
    torch.save({"state_dict": Payload(ran)}, tmp_path / "code.pth")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pth")
    torch.save({"epoch": 3}, tmp_path / "epoch.pth")
    (tmp_path / "page.pth").write_text("<html>Not found</html>")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    for name in ("code.pth", "model.pth", "epoch.pth", "page.pth", "empty.pth", "cut.safetensors", "absent.pth"):
        with pytest.raises(InputError, match=name) as error:
            read_weights(tmp_path / name)
        assert "\n" not in str(error.value)
        assert "weights_only" not in str(error.value)
    assert not ran.exists()
