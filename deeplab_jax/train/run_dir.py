"""The run folder, and what of an experiment follows from its data."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np

from deeplab_jax.classes import Classes
from deeplab_jax.config import Experiment
from deeplab_jax.data.dataset import Dataset
from deeplab_jax.data.statistics import balancing_weights, count
from deeplab_jax.errors import InputError
from deeplab_jax.package.folder import PARTIAL, one_logit_tells
from deeplab_jax.serialization import differences, load_json, save_json, to_dict
from deeplab_jax.train.optimizer import make_lr_schedule
from deeplab_jax.train.run_data import check_classes, elsewhere
from deeplab_jax.train.sharding import is_main, wait_for_all

UNFINISHED = {".lock", "config.json.new"}  # what a start that failed may leave in a run folder


def fit_to_data(config: Experiment, classes: Classes, images: int) -> Experiment:
    """The experiment with epochs as steps. Raises InputError where the data set does not fit the model."""
    root, train, weights = config.data.root, config.train, config.loss.class_weights
    one_logit = config.model.num_classes == 1 and len(classes) == 2
    if len(classes) < 2:
        raise InputError(f"{root} has one class; segmentation needs two, such as background and {classes.names[0]}")
    if one_logit and not one_logit_tells(classes.names):
        raise InputError(
            f"a model of one logit (num_classes=1) tells a class from background, so class 0 of {root} must be called "
            f"background, not {classes.names[0]!r}; or set num_classes=2 in the experiment"
        )
    if len(classes) != config.model.num_classes and not one_logit:
        raise InputError(
            f"{root} has {len(classes)} classes but the model {config.model.num_classes}; "
            f"set num_classes={len(classes)} in the experiment"
        )
    if weights and len(weights) != len(classes) and not (one_logit and len(weights) == 1):
        raise InputError(f"there are {len(weights)} loss.class_weights but {len(classes)} classes; give one for each")

    def steps(epochs: float) -> int:
        return max(round(epochs * images / train.batch_size), 1)

    if train.epochs is not None:
        rest = -steps(train.epochs) % config.optim.grad_accum_steps
        train = replace(train, steps=steps(train.epochs) + rest, epochs=None)
    if train.validate_epochs is not None:
        train = replace(train, validate_every=steps(train.validate_epochs), validate_epochs=None)
    accumulate, warmup = config.optim.grad_accum_steps, config.optim.warmup
    if train.steps % accumulate:
        fitting = -(-train.steps // accumulate) * accumulate
        raise InputError(
            f"{train.steps} steps must be a multiple of optim.grad_accum_steps={accumulate}; try {fitting}"
        )
    if warmup >= (updates := train.steps // accumulate):
        raise InputError(f"optim.warmup={warmup} must be below the {updates} updates of the run")
    return replace(config, train=train)


def balance_classes(config: Experiment, train_set: Dataset) -> Experiment:
    """The experiment with class weights in place of `loss.balance`: all pixels of the training set are counted."""
    if not config.loss.balance:
        return config
    weights = balancing_weights(count(train_set, config.data.threads))
    return replace(config, loss=replace(config.loss, class_weights=weights, balance=False))


def check_same_classes(train_split: str, train: Classes, val_split: str, val: Classes) -> None:
    """Raises InputError where the ids of the two splits stand for other classes."""
    if train.names != val.names:
        raise InputError(
            f"{val_split} has the classes {', '.join(val.names)}, but {train_split} {', '.join(train.names)}; ids must "
            "stand for the same classes in both"
        )


def last_checkpoint(out: Path) -> int:
    """The step that a run there goes on after; 0 where it begins."""
    return max((int(path.name) for path in (out / "checkpoints").glob("*") if path.name.isdigit()), default=0)


@contextmanager
def open_run(config: Experiment, out: Path, classes: Classes) -> Iterator[None]:
    """Makes the run folder, or checks that the run in it is this one. Inside, it is this run's alone.

    Of several processes the main one does so, and the others wait for it.

    Raises:
        InputError: that names the difference, or where another run is training there.
    """
    with lock_run(config, out, classes) if is_main() else nullcontext():
        wait_for_all("run folder")
        yield


@contextmanager
def lock_run(config: Experiment, out: Path, classes: Classes) -> Iterator[None]:
    """`open_run` in the main process."""
    path = out / "config.json"
    if path.exists():
        try:
            before = load_json(Experiment, path)
        except InputError as error:
            raise InputError(f"{out} exists and holds no run ({error}); choose another --out") from None
        if (out / "package").exists() or any((out / "checkpoints").glob("*")):
            check_goes_on(out, before, config)
            check_classes(out, classes)
    elif out.exists() and (not out.is_dir() or {path.name for path in out.iterdir()} - UNFINISHED):
        raise InputError(f"{out} exists and holds no run; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another process is training in {out}; wait for it or choose another --out") from None
        for left_by_a_killed_run in out.glob(f"{PARTIAL}*"):
            if (left_by_a_killed_run / "old").exists() and not (out / "package").exists():
                (left_by_a_killed_run / "old").rename(out / "package")
            shutil.rmtree(left_by_a_killed_run)
        if path.exists():
            keep_shorter(out, load_json(Experiment, path), config)
        save_json(config, path)
        yield


def check_goes_on(out: Path, before: Experiment, config: Experiment) -> None:
    """Raises InputError unless the run in `out` is this one so far: only its length may have grown."""
    old, new = before.train.steps, config.train.steps
    as_long = replace(config, train=replace(config.train, steps=old))
    for name, other, own in differences(to_dict(resume_key(before)), to_dict(resume_key(as_long))):
        raise InputError(f"{out} holds a run with {name}={other}, not {own}; {elsewhere(out)}")
    if new < old:
        raise InputError(
            f"{out} holds a run of {old} steps, which can become longer but not {new}; give train.steps={old}, or "
            f"{elsewhere(out)}"
        )


def keep_shorter(out: Path, before: Experiment, config: Experiment) -> None:
    """The config of a run that becomes longer stays beside the new one, under the step until which it holds."""
    kept = out / f"config-until-step-{last_checkpoint(out)}.json"
    if before.train.steps < config.train.steps and last_checkpoint(out) and not kept.exists():
        save_json(before, kept)


def extension(out: Path, config: Experiment, step: int) -> list[str]:
    """What it means that a run becomes longer, where no step was saved since; nothing where it does not."""
    kept = {int(path.stem.rpartition("-")[2]): path for path in out.glob("config-until-step-*.json")}
    pending = [until for until in kept if until >= step]
    if not pending:
        return []
    optim, accumulate = config.optim, config.optim.grad_accum_steps
    old, new = load_json(Experiment, kept[min(pending)]).train.steps, config.train.steps
    patience = ["train.patience counts from here"] if config.train.patience else []
    if optim.schedule == "constant":
        same = f"the learning rate is constant, so it ends with the weights of a run of {new} steps in one go"
        return [f"extended from {old} to {new} steps: {same}", *patience]
    before = np.asarray(make_lr_schedule(optim, old // accumulate)((step - 1) // accumulate))
    after = np.asarray(make_lr_schedule(optim, new // accumulate)(step // accumulate))
    rates = f"the learning rate was {before:.3g} and goes on with {after:.3g}, to fall to 0 by step {new}"
    other = f"so it ends with other weights than a run of {new} steps in one go"
    return [f"extended from {old} to {new} steps: {rates}, {other}", *patience]


def resume_key(config: Experiment) -> Experiment:
    """The experiment without what has no bearing on its weights, and so may change when a run goes on."""
    data = replace(config.data, root=Path(), threads=1, workers=0)
    start = replace(config.init, package=config.init.package and Path())
    train = replace(config.train, log_every=1, save_every=1, patience=None, wandb=None)
    return replace(config, data=data, init=start, train=train)
