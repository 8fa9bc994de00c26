"""The run folder, and what of an experiment follows from its data."""

import shutil
from dataclasses import replace
from pathlib import Path

from deeplab_jax.config import Experiment, differences, load_json, save_json, to_dict
from deeplab_jax.data.classes import Classes
from deeplab_jax.errors import InputError
from deeplab_jax.inference.package import PARTIAL


def fit_to_data(config: Experiment, classes: Classes, images: int) -> Experiment:
    """The experiment with epochs as steps. Raises InputError where the data set does not fit the model."""
    root, train, weights = config.data.root, config.train, config.loss.class_weights
    if len(classes) < 2:
        raise InputError(f"{root} has one class; segmentation needs two, such as background and {classes.names[0]}")
    if len(classes) != config.model.num_classes:
        raise InputError(
            f"{root} has {len(classes)} classes but the model {config.model.num_classes}; "
            f"set num_classes={len(classes)} in the experiment"
        )
    if weights and len(weights) != len(classes):
        raise InputError(f"there are {len(weights)} loss.class_weights but {len(classes)} classes; give one for each")

    def steps(epochs: float) -> int:
        return max(round(epochs * images / train.batch_size), 1)

    if train.epochs is not None:
        train = replace(train, steps=steps(train.epochs), epochs=None)
    if train.validate_epochs is not None:
        train = replace(train, validate_every=steps(train.validate_epochs), validate_epochs=None)
    return replace(config, train=train)


def open_run(config: Experiment, out: Path) -> None:
    """Makes the run folder, or checks that the run in it is this one. Raises InputError that names the difference."""
    path = out / "config.json"
    no_run = InputError(f"{out} exists and holds no run; choose another --out")
    if path.exists():
        try:
            before = load_json(Experiment, path)
        except InputError:
            raise no_run from None
        begun = (out / "package").exists() or any((out / "checkpoints").glob("*"))
        before, now = to_dict(what_decides(before)), to_dict(what_decides(config))
        if begun and before != now:
            name, theirs, ours = next(differences(before, now))
            raise InputError(f"{out} holds a run with {name}={theirs}, not {ours}; choose another --out")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise no_run
    out.mkdir(parents=True, exist_ok=True)
    for left_by_a_killed_run in out.glob(f"{PARTIAL}*"):
        shutil.rmtree(left_by_a_killed_run)
    save_json(config, path)


def what_decides(config: Experiment) -> Experiment:
    """The experiment without what has no bearing on its weights, and so may change when a run goes on."""
    data = replace(config.data, root=Path(), threads=1, workers=0)
    return replace(config, data=data, train=replace(config.train, log_every=1, save_every=1, wandb=None))
