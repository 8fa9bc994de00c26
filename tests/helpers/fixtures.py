"""What many tests share: data sets, experiments, packages and models, small enough to compile in a second."""

import importlib.util
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import jaxtyping
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from deeplab_jax.classes import Classes, default_palette
from deeplab_jax.config import IGNORE, AugmentConfig, DataConfig, Experiment, OptimConfig, PreprocessConfig, TrainConfig
from deeplab_jax.data.generate import CLASS_NAMES, draw_sample
from deeplab_jax.model_config import ASPPConfig, AuxHeadConfig, DecoderConfig, ModelConfig, ResNetConfig
from deeplab_jax.models import build_model
from deeplab_jax.models.state import abstract_model, fill, flat_state
from deeplab_jax.package import jax_weights
from helpers.tfds_files import draw, prepare_images

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"


def declare_torchvision_operators() -> None:
    """A torchvision built for CUDA imports beside a CPU-only torch once two operators are declared."""
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        boxes = "Tensor dets, Tensor scores"
        torch.library.define("torchvision::nms", f"({boxes}, float iou_threshold) -> Tensor")
        torch.library.define("torchvision::qnms", f"({boxes}, float iou_threshold) -> Tensor")


if importlib.util.find_spec("torch"):
    declare_torchvision_operators()


@pytest.fixture
def unchecked(monkeypatch) -> None:
    """Run-time checks of annotations off: they take most of the time, and what they raise would pass for damage."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="session")
def camvid() -> Path:
    root = SHARED / "data" / "camvid"
    if not root.is_dir():
        pytest.skip(reason="CamVid is not here")
    return root


@pytest.fixture(scope="session")
def tiny_config() -> ModelConfig:
    """A V3+ with every part of a real one, small enough to compile in a second."""
    return ModelConfig(
        num_classes=len(CLASS_NAMES),
        encoder=ResNetConfig((1, 1, 1, 1), bottleneck=False, output_stride=16, dilation_rule="whole-stage", width=8),
        aspp=ASPPConfig(atrous_rates=(1, 2), channels=16, branches="separable", refine="separable", dropout=0.1),
        decoder=DecoderConfig(low_level_channels=8, channels=16),
        aux_head=AuxHeadConfig(channels=8),
    )


@pytest.fixture(scope="session")
def shapes_folder(tmp_path_factory) -> Path:
    """Generated images of 48 pixels: 12 to train on, 5 to validate on."""
    root = tmp_path_factory.mktemp("shapes")
    for split, count in {"train": 12, "val": 5}.items():
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for number in range(count):
            image, mask = draw_sample(np.random.default_rng((count, number)), 48)
            Image.fromarray(image).save(root / "images" / split / f"{number}.png")
            Image.fromarray(mask).save(root / "masks" / split / f"{number}.png")
    (root / "classes.txt").write_text("\n".join(CLASS_NAMES))
    return root


@pytest.fixture
def broken(shapes_folder, tmp_path) -> Path:
    """A copy of the images to spoil."""
    return shutil.copytree(shapes_folder, tmp_path / "broken")


@pytest.fixture(scope="session")
def tiny_experiment(tiny_config, shapes_folder) -> Experiment:
    return Experiment(
        model=tiny_config,
        data=DataConfig(root=shapes_folder, format="folder", threads=2),
        preprocess=PreprocessConfig(size=(48, 48)),
        augment=AugmentConfig(crop=(32, 40)),
        optim=OptimConfig(lr=0.05),
        train=TrainConfig(steps=12, batch_size=8, log_every=1, validate_every=6, save_every=3),
    )


@pytest.fixture(scope="session")
def tiny_package(tmp_path_factory, tiny_config) -> Path:
    """A JAX package of an untrained model whose BatchNorm statistics are not the identity."""
    model = randomize_statistics(build_model(tiny_config, rngs=nnx.Rngs(0)))
    folder = tmp_path_factory.mktemp("packages") / "jax"
    classes = Classes(CLASS_NAMES, default_palette(len(CLASS_NAMES)))
    jax_weights.save(folder, model, classes, PreprocessConfig(size=(49, 65)))
    return folder


def randomize_statistics(model, seed: int = 0):
    rng = np.random.default_rng(seed)
    for _, module in nnx.iter_modules(model):
        if isinstance(module, nnx.BatchNorm):
            size = module.num_features
            module.mean[...] = rng.normal(0, 0.2, size).astype(np.float32)
            module.var[...] = rng.uniform(0.5, 1.5, size).astype(np.float32)
            module.scale[...] = rng.uniform(0.5, 1.5, size).astype(np.float32)
            module.bias[...] = rng.normal(0, 0.2, size).astype(np.float32)
    model.eval()
    return model


def blank_model(config: ModelConfig):
    """A model whose every array is 0, at no cost."""
    model = abstract_model(config)
    return fill(model, {path: np.zeros(leaf.shape, np.float32) for path, leaf in flat_state(model).items()})


def randomize_torch(model, seed: int = 0):
    """The PyTorch model in evaluation mode, with BatchNorms that are not the identity."""
    import torch

    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.1)
    return model.eval()


def random_smp(architecture: str, encoder: str, output_stride: int, classes: int = 21, seed: int = 0):
    """A model of segmentation_models_pytorch in evaluation mode."""
    torch = pytest.importorskip("torch")
    other = pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(seed)
    model = getattr(other, architecture)(
        encoder, encoder_weights=None, classes=classes, encoder_output_stride=output_stride
    )
    return randomize_torch(model, seed)


def changed(experiment: Experiment, **fields) -> Experiment:
    """The experiment with other fields of `train`."""
    return replace(experiment, train=replace(experiment.train, **fields))


CLASSES = Classes(("background", "cell"), ((0, 0, 0), (255, 255, 255)))


@pytest.fixture(scope="session")
def onnx_package(tiny_package, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages") / "onnx"
    from converters.export.onnx_graph.onnx_package import export

    export(tiny_package, folder)
    return folder


@pytest.fixture(scope="session", params=["jax", "onnx"])
def package(request, tiny_package, onnx_package):
    return {"jax": tiny_package, "onnx": onnx_package}[request.param]


def random_images(*sizes):
    rng = np.random.default_rng(0)
    return [
        cv2.resize(rng.integers(0, 256, (6, 6, 3), np.uint8), (w, h), interpolation=cv2.INTER_CUBIC) for h, w in sizes
    ]


@pytest.fixture(scope="session")
def v3():
    """A small DeepLabV3 of segmentation_models_pytorch."""
    return small_smp("DeepLabV3", "resnet18")


@pytest.fixture(scope="session")
def v3plus():
    """A small DeepLabV3+ of segmentation_models_pytorch."""
    return small_smp("DeepLabV3Plus", "mobilenet_v2")


def small_smp(architecture, encoder):
    torch = pytest.importorskip("torch")
    other = pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(0)
    build = getattr(other, architecture)
    return randomize_torch(build(encoder, encoder_weights=None, classes=4, decoder_channels=16))


@pytest.fixture(scope="session")
def tfds():
    pytest.importorskip("array_record", reason="array_record is not installed: pip install 'deeplab_jax[tfds]'")
    return pytest.importorskip("tensorflow_datasets", reason="TFDS is not installed: pip install 'deeplab_jax[tfds]'")


@pytest.fixture
def toy(tfds, tmp_path):
    """Three unnamed classes and void, and the folder of the version."""
    return prepare_images(tfds, tmp_path, draw((0, 1, 2, IGNORE)))
