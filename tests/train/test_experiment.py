"""Supervisely's training files as experiments."""

import importlib
import json

import numpy as np
import pytest
from PIL import Image

from deeplab_jax.cli import commands
from deeplab_jax.config import PreprocessConfig
from deeplab_jax.data.formats import open_dataset
from deeplab_jax.errors import InputError
from deeplab_jax.model_config import MobileNetV2Config, XceptionConfig
from deeplab_jax.train import loop
from deeplab_jax.train.checkpoint import Progress
from deeplab_jax.train.experiment import load_experiment
from helpers.fixtures import ROOT

SETTINGS = {
    "lr": 0.01,
    "epochs": 2,
    "val_every": 0.5,
    "batch_size": {"val": 2, "train": 8},
    "input_size": {"width": 48, "height": 32},
    "gpu_devices": [],
    "data_workers": {"train": 0, "val": 0},
    "dataset_tags": {"train": "learn", "val": "judge"},
    "special_classes": {"background": "floor", "neutral": "ignore"},
    "weights_init_type": "transfer_learning",
}


@pytest.fixture
def project(tmp_path):
    """Eight tagged images with a box each: six to learn from, two to judge by."""
    root = tmp_path / "project"
    titles = ("ball", "floor", "ignore", "box")
    classes = [{"title": title, "shape": "rectangle", "color": f"#00{i}0FF"} for i, title in enumerate(titles)]
    (root / "ds" / "img").mkdir(parents=True)
    (root / "ds" / "ann").mkdir()
    (root / "meta.json").write_text(json.dumps({"classes": classes}))
    for i in range(8):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (32, 48, 3), np.uint8)).save(root / f"ds/img/{i}.png")
        boxes = [
            {"classTitle": title, "geometryType": "rectangle", "points": {"exterior": [[x, 4], [x + 9, 20]]}}
            for title, x in (("ball", 2), ("box", 14), ("ignore", 30))
        ]
        stated = {
            "size": {"height": 32, "width": 48},
            "tags": [{"name": "judge" if i > 5 else "learn"}],
            "objects": boxes,
        }
        (root / f"ds/ann/{i}.png.json").write_text(json.dumps(stated))
    return root


def write(folder, **changes):
    path = folder / "training.json"
    path.write_text(json.dumps({name: v for name, v in (SETTINGS | changes).items() if v is not None}))
    return path


def test_settings_become_an_experiment(project, tmp_path):
    actual = load_experiment(write(tmp_path), ["--data.root", str(project)])
    dataset = open_dataset(actual.data.root, actual.data.format, actual.data.train_split)
    assert dataset.classes.names == ("background", "ball", "box")
    assert (len(dataset), actual.model.num_classes) == (6, 3)
    assert sorted(np.unique(dataset[0].mask)) == [0, 1, 2, 255]
    assert (actual.preprocess.size, actual.augment.crop) == ((32, 48), (32, 48))
    assert (actual.train.epochs, actual.train.validate_epochs, actual.train.batch_size) == (2.0, 0.5, 8)
    assert actual.optim.lr == 0.01
    usual = load_experiment(write(tmp_path, epochs=None, input_size=None), [f"--data.root={project}"])
    assert (usual.train.epochs, usual.preprocess.size) == (2.0, (513, 513))


@pytest.mark.slow
def test_a_training_file_starts_a_run(project, tmp_path, tiny_package, monkeypatch, capsys):
    command = ["deeplab", "train", str(write(tmp_path)), "--data.root", str(project), "--out", str(tmp_path / "run")]
    monkeypatch.setattr("sys.argv", [*command, "--init.package", str(tiny_package)])
    started = []
    monkeypatch.setattr(loop, "train", lambda config, out: started.append((config, out)) or Progress(0.5))
    assert commands.main() == 0, capsys.readouterr().err
    ((config, out),) = started
    assert (config.model.num_classes, config.model.encoder.width) == (3, 8)  # the package's network
    assert (config.init.package, out) == (tiny_package, tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": "fast"}, r"training.json: lr: must be of type float, not 'fast'"),
        ({"epoch": 3}, r"training.json: 'epoch' is not known; a training file holds lr, epochs"),
        ({"batch_size": 8}, r"batch_size: must be an object with the keys train, val, not 8"),
        ({"batch_size": {"train": True}}, r"batch_size.train: must be of type int, not True"),
        ({"weights_init_type": "imagenet"}, r"weights_init_type: must be one of"),
        ({"dataset_tags": {"train": "night"}}, r"its images are tagged 'judge', 'learn'"),
        ({"epochs": -1}, r"epochs=-1.0 must be positive"),
    ],
)
def test_faults_are_named(project, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        load_experiment(write(tmp_path, **changes), ["--data.root", str(project)])


RECIPES = [
    path
    for path in sorted((ROOT / "experiments" / "recipes").glob("*.py"))
    if "config = Experiment(" in path.read_text()
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_fit_their_data_sets(recipe):
    """As many classes as the layout has, and normalization that the encoder's published weights have."""
    config = load_experiment(recipe, [])
    if config.data.format != "coco":  # whose classes are the data's
        layout = importlib.import_module(f"deeplab_jax.data.formats.{config.data.format}")
        assert config.model.num_classes == len(layout.CLASSES)
    half = isinstance(config.model.encoder, XceptionConfig | MobileNetV2Config)
    assert config.preprocess.mean == ((0.5, 0.5, 0.5) if half else PreprocessConfig().mean)
    assert "Measured: " in recipe.read_text() or recipe.stem == "camvid_resnet18"


def test_the_project_must_be_named(tmp_path):
    with pytest.raises(InputError, match=r"name the folder of the project: deeplab train .*json --data.root PROJECT"):
        load_experiment(write(tmp_path), [])
    with pytest.raises(InputError, match="must be such as supervisely:background=floor,neutral=ignore"):
        open_dataset(tmp_path, "supervisely:floor", "train")
