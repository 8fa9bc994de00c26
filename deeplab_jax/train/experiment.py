"""What `deeplab train` is given: a Python file that sets `config`, or a training file of Supervisely's."""

import importlib.util
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from deeplab_jax.config import (
    AugmentConfig,
    DataConfig,
    Experiment,
    InitConfig,
    OptimConfig,
    PreprocessConfig,
    TrainConfig,
)
from deeplab_jax.errors import InputError
from deeplab_jax.model_config import ModelConfig
from deeplab_jax.serialization import from_dict, load_json, read_json


def load_experiment(path: Path, arguments: Sequence[str]) -> Experiment:
    """The experiment in a file.

    Args:
        path: of the file.
        arguments: of the command line; Supervisely's files need the project's folder and the weights to start from.

    Raises:
        InputError: that names the file and what is wrong in it.
    """
    if not path.is_file():
        raise InputError(f"the experiment {path} does not exist or is no file")
    return load_supervisely(path, arguments) if path.suffix == ".json" else load_python(path)


def load_python(path: Path) -> Experiment:
    name = f"deeplab_experiment_{path.stem}"  # an experiment called jax.py must not stand in for jax
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"the experiment {path} is neither a Python file (.py) nor a training file (.json)")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == module.__file__
        ]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else "?"
        raise InputError(f"{path}, line {line}: {type(error).__name__}: {error}") from None
    config = getattr(module, "config", None)
    if not isinstance(config, Experiment):
        raise InputError(f"{path} must set `config` to a deeplab_jax.config.Experiment")
    return config


DEFAULTS: dict[str, Any] = {  # Supervisely's own
    "lr": 0.001,
    "epochs": 2.0,
    "val_every": 0.5,
    "batch_size": {"train": 12, "val": 6},
    "input_size": {"width": 513, "height": 513},
    "gpu_devices": [],
    "data_workers": {"train": 0, "val": 0},
    "dataset_tags": {"train": "train", "val": "val"},
    "special_classes": {"background": "bg", "neutral": "neutral"},
    "weights_init_type": "transfer_learning",
}


def load_supervisely(path: Path, arguments: Sequence[str]) -> Experiment:
    """A training file of Supervisely's: its settings, for the classes of the project in `--data.root`.

    The network is that of `--init.package`, or the original's Xception-65 at output stride 16.
    """
    from deeplab_jax.data.formats import find_dataset

    stated = from_dict(dict, read_json(path), str(path))
    if unknown := sorted(set(stated) - set(DEFAULTS)):
        raise InputError(f"{path}: {unknown[0]!r} is not known; a training file holds {', '.join(DEFAULTS)}")
    settings = DEFAULTS | stated

    def take(kind: Any, name: str, *inner: str) -> Any:
        value, where = settings[name], f"{path}: {name}"
        if inner and not (isinstance(value, dict) and set(value) <= set(DEFAULTS[name])):
            raise InputError(f"{where}: must be an object with the keys {', '.join(DEFAULTS[name])}, not {value!r}")
        for key in inner:
            value, where = value.get(key, DEFAULTS[name][key]), f"{where}.{key}"
        return from_dict(kind, value, where)

    root, package = _argument(arguments, "--data.root"), _argument(arguments, "--init.package")
    if root is None:
        raise InputError(f"name the folder of the project: deeplab train {path} --data.root PROJECT")
    special = ",".join(f"{role}={take(str, 'special_classes', role)}" for role in ("background", "neutral"))
    format, split = f"supervisely:{special}", take(str, "dataset_tags", "train")
    val_split, workers = take(str, "dataset_tags", "val"), take(int, "data_workers", "train")
    mode = take(Literal["transfer_learning", "continue_training"], "weights_init_type")
    classes = len(find_dataset(Path(root), format, split).classes)
    if devices := take(tuple[int, ...], "gpu_devices"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, devices))  # JAX takes all that it sees
    size = take(int, "input_size", "height"), take(int, "input_size", "width")
    return Experiment(
        model=_model(package, classes),
        data=DataConfig(Path(root), format, split, val_split, workers=workers),
        preprocess=_preprocess(package, size),
        augment=AugmentConfig(crop=size),
        optim=OptimConfig(lr=take(float, "lr")),
        init=InitConfig(Path(package) if package else None, mode),
        train=TrainConfig(
            epochs=take(float, "epochs"),
            validate_epochs=take(float, "val_every"),
            batch_size=take(int, "batch_size", "train"),
        ),
    )


def _model(package: str | None, classes: int) -> ModelConfig:
    if package:
        config = load_json(ModelConfig, Path(package) / "architecture.json")
        # One logit tells background and another class apart.
        return config if (config.num_classes, classes) == (1, 2) else replace(config, num_classes=classes)
    from deeplab_jax.models import presets

    return presets.tf_deeplab("xception_65", classes, 16)


def _preprocess(package: str | None, size: tuple[int, int]) -> PreprocessConfig:
    from deeplab_jax.package.folder import read_package

    if package:
        return replace(read_package(Path(package)).preprocess, size=size)
    return PreprocessConfig(size, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def _argument(arguments: Sequence[str], name: str) -> str | None:
    """The value of an option, as `--name VALUE` or `--name=VALUE`."""
    for place, argument in enumerate(arguments):
        if argument == name:
            return arguments[place + 1] if place + 1 < len(arguments) else None
        if argument.startswith(f"{name}="):
            return argument.removeprefix(f"{name}=")
    return None
