"""Torch packages: what the shared API's torch backend builds and loads."""

import json
import resource
from dataclasses import replace

import pytest

from converters import smp
from converters.export import torch_package as converter
from converters.export.export import Options, export
from converters.export.source import read_source
from deeplab_jax import AutoModel
from deeplab_jax.classes import Classes, default_palette
from deeplab_jax.config import PreprocessConfig
from deeplab_jax.errors import InputError
from deeplab_jax.model_config import AuxHeadConfig
from deeplab_jax.models import presets
from deeplab_jax.models.state import flat_state
from deeplab_jax.package import jax_weights
from helpers.fixtures import randomize_torch

torch = pytest.importorskip("torch")
library = pytest.importorskip("segmentation_models_pytorch")
CLASSES = Classes(("background", "a", "b"), default_palette(3))


@pytest.fixture(scope="module")
def other():
    torch.manual_seed(0)
    return randomize_torch(library.DeepLabV3Plus("mobilenet_v2", encoder_weights=None, classes=3))


@pytest.fixture(scope="module")
def source(other, tmp_path_factory):
    model = smp.from_state_dict(other.state_dict(), presets.smp_deeplabv3plus("mobilenet_v2", 3))
    folder = tmp_path_factory.mktemp("packages") / "jax"
    jax_weights.save(folder, model, CLASSES, PreprocessConfig(size=(64, 64)))
    return folder


def test_the_other_library_loads_the_very_weights(other, source, tmp_path):
    converter.write(tmp_path / "out", converter.prepare(read_source(source)))
    config = json.loads((tmp_path / "out" / "inference_config.json").read_text())
    assert config["model_initialization"] == {"classes": 3, "in_channels": 3, "encoder_name": "mobilenet_v2"}
    assert json.loads((tmp_path / "out" / "model_config.json").read_text())["backend_type"] == "torch"
    state_dict = torch.load(tmp_path / "out" / "weights.pt", weights_only=True)
    settings = config["model_initialization"]
    built = library.DeepLabV3Plus(settings.pop("encoder_name"), encoder_weights=None, **settings)
    built.load_state_dict(state_dict, strict=True)
    for name, tensor in other.state_dict().items():
        assert torch.equal(built.state_dict()[name], tensor), name


def test_auto_model_points_to_the_converter(source, tmp_path):
    converter.write(tmp_path / "out", converter.prepare(read_source(source)))
    with pytest.raises(InputError, match="deeplab convert smp"):
        AutoModel.from_pretrained(tmp_path / "out")


def test_what_another_engine_refuses_leaves_nothing(source, tmp_path, monkeypatch):
    def differs(source, dynamic_size):
        raise InputError("it differs; nothing was written")

    monkeypatch.setattr("converters.export.onnx_graph.onnx_package.build", differs)
    with pytest.raises(InputError, match="nothing was written"):
        export(source, ["torch", "onnx"], tmp_path / "out", Options(), lambda step, actual: None)
    assert not [*tmp_path.iterdir()]


USUAL = presets.smp_deeplabv3plus("resnet18", 3)


@pytest.mark.slow
def test_auxiliary_heads_do_not_matter():
    from flax import nnx

    from deeplab_jax.models import build_model

    config = replace(presets.smp_deeplabv3plus("mobilenet_v2", 3), aux_head=AuxHeadConfig(channels=4))
    model = build_model(config, rngs=nnx.Rngs(0))
    bare = converter.without_auxiliary(model)
    assert converter.buildable_encoder(bare.config) == "mobilenet_v2"
    assert len(flat_state(bare)) == len([path for path in flat_state(model) if path[0] != "aux_head"])


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        (presets.smp_deeplabv3("resnet18", 3), "a DeepLabV3 without a decoder; export to onnx"),
        (presets.smp_deeplabv3plus("resnet18", 3, 8), "default output stride, 16, but this model has 8"),
        (
            presets.smp_deeplabv3plus("resnet18", 3, decoder_atrous_rates=(6, 12, 18)),
            r"default atrous rates, \(12, 24, 36\), but this model has \(6, 12, 18\)",
        ),
        (presets.smp_deeplabv3plus("resnet18", 3, decoder_channels=64), "decoder channels, 256, but this model has 64"),
        (
            presets.smp_deeplabv3plus("resnet18", 3, decoder_aspp_separable=False),
            "3x3 convolutions in the pyramid, separable, but this model has dense",
        ),
        (presets.tf_deeplab("xception_65", 3, 16), "builds no such model"),
        (replace(USUAL, align_corners=False), "builds no such model"),
    ],
)
def test_what_the_other_library_would_build_differently_is_refused(config, fault):
    with pytest.raises(InputError, match=fault):
        converter.buildable_encoder(config)


def test_what_training_alone_uses_does_not_matter():
    assert converter.buildable_encoder(replace(USUAL, aspp=replace(USUAL.aspp, dropout=0.0))) == "resnet18"


def test_a_full_disk_is_one_line(source, tmp_path):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        with pytest.raises(InputError, match="out: the package cannot be written"):
            converter.write(tmp_path / "out", converter.prepare(read_source(source)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not [*tmp_path.iterdir()]
