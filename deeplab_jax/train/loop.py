"""The training loop: data, state, resuming, steps, validation, and the best weights as a package."""

from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from deeplab_jax.config import Experiment
from deeplab_jax.data.dataset import Dataset
from deeplab_jax.data.formats import open_dataset
from deeplab_jax.data.loader import eval_batches, train_batches
from deeplab_jax.data.statistics import balancing_weights, check_learnable, count
from deeplab_jax.errors import InputError
from deeplab_jax.inference.backends import jax_backend
from deeplab_jax.train.checkpoint import Checkpoints, Progress
from deeplab_jax.train.preemption import Interrupted, caught_signals
from deeplab_jax.train.run_dir import check_same_classes, extension, fit_to_data, last_checkpoint, open_run
from deeplab_jax.train.sharding import (
    Shardings,
    check_fit,
    host_shard,
    is_main,
    largest_of_all,
    make_shardings,
    put,
    wait_for_all,
)
from deeplab_jax.train.step import TrainState, eval_model, init_from_package, init_state, is_finite, make_train_step
from deeplab_jax.train.tracking.tracker import NullTracker, Tracker
from deeplab_jax.train.validate import make_validate
from deeplab_jax.train.warm_start import check_init, describe_init, init_warnings


def train(config: Experiment, out: Path) -> Progress:
    """Trains, or goes on where a run in `out` stopped. Returns where it ended and its best validation figures.

    The run folder then holds config.json, checkpoints/, metrics.jsonl, TensorBoard events, curves.png and package/,
    the best weights by `train.best_by`.

    Raises:
        InputError: for data or settings that cannot be used, or an `out` that holds another run.
        Interrupted: after Ctrl-C or SIGTERM, when the run is saved.
    """
    # ---------------------------------------------------------------- data
    data = config.data
    train_set = open_dataset(data.root, data.format, data.train_split)
    val_set = open_dataset(data.root, data.format, data.val_split)
    classes = train_set.classes
    check_same_classes(data.train_split, classes, data.val_split, val_set.classes)
    config = fit_to_data(config, classes, len(train_set))
    if config.init.package and not last_checkpoint(out):
        check_init(config, classes.names)

    # ---------------------------------------------------------------- devices and run folder
    shardings = make_shardings(spatial_shards=config.train.spatial_shards)
    check_fit(config, shardings)
    check_learnable(train_set, data)
    with open_run(config, out) if is_main() else nullcontext():
        wait_for_all("run folder")
        return run(config, out, train_set, val_set, shardings)


def run(config: Experiment, out: Path, train_set: Dataset, val_set: Dataset, shardings: Shardings) -> Progress:
    """`train` in a run folder that is made."""
    # ---------------------------------------------------------------- model and state
    data, classes, shard = config.data, train_set.classes, host_shard(shardings)
    steps, batch_size, every = config.train.steps, config.train.batch_size, config.train
    if config.loss.balance:
        weights = balancing_weights(count(train_set, data.threads))
        config = replace(config, loss=replace(config.loss, class_weights=weights, balance=False))
    graph, state = init_state(config, shardings)
    train_step = make_train_step(config, graph, shardings)
    validate = make_validate(config, graph, shardings, val_set, shard)

    # ---------------------------------------------------------------- resume
    checkpoints, progress, notes = Checkpoints(out / "checkpoints"), Progress(), []
    if restored := checkpoints.restore(state):
        state, progress, notes = restored
        ended = "; all steps are done, a larger train.steps would go on" if int(state.step) == steps else ""
        notes.append(f"going on after step {state.step}{ended}")
        if extended := extension(out, config, int(state.step)):
            notes += extended
            progress.without_gain = 0
    elif config.init.package:
        state, left = init_from_package(config, graph, state, classes.names, shardings)
        notes.append(describe_init(config.init, left))
        notes += [f"warning: {note}" for note in init_warnings(config.init, config.model, config.preprocess)]
    else:
        notes.append("starting from random weights")
    notes += [f"warning: {note}" for dataset in (train_set, val_set) for note in dataset.notes]
    for _ in eval_batches(val_set, config.preprocess, batch_size, data, shard):
        pass  # a file that cannot be used shows now, not at the first validation

    # ---------------------------------------------------------------- train
    start = done = int(state.step)
    losses = progress.losses
    numbers = range(start, steps)
    batches = train_batches(train_set, config.preprocess, batch_size, numbers, config.train.seed, data, shard)
    tracker = Tracker(out, start, progress.validated, config, classes) if is_main() else NullTracker()
    with tracker as track, closing(batches), caught_signals() as signal:

        def asked_to_leave() -> int:
            """By a signal, to any process: all leave at the same step."""
            return largest_of_all(signal())

        def inspect(step: int) -> None:
            """Validates, and packages the best so far; left out where the run is to end now, and owed by the next."""
            if (result := validate(state, asked_to_leave)) is None:
                return
            progress.validated = step
            if progress.is_better(result.scores.miou if every.best_by == "miou" else -result.loss) and is_main():
                jax_backend.save(out / "package", eval_model(graph, state), classes, config.preprocess)
            track.validate(step, result)

        images = f"{len(train_set)} images to train on, {len(val_set)} to validate on"
        track.say(f"{images}; {shardings.batch.mesh.size} x {jax.devices()[0].device_kind}")
        for note in notes:
            track.say(note)
        if config.loss.class_weights:
            track.say(f"class weights {', '.join(f'{weight:.3g}' for weight in config.loss.class_weights)}")
        try:
            if start and due(start, every.validate_every, steps) and progress.validated < start:
                inspect(start)
                if number := asked_to_leave():
                    raise Interrupted(number)
            for step, batch in zip(range(start + 1, steps + 1), batches, strict=True):
                if every.patience and progress.without_gain >= every.patience:
                    track.say(f"no better validation in {progress.without_gain}: stopped after step {done}")
                    break
                state, metrics = train_step(state, put(batch, shardings))
                done = step
                losses.append(metrics["loss"])
                if due(step, every.log_every, steps) or due(step, every.validate_every, steps):
                    check_finite(step, losses, state)
                if due(step, every.log_every, steps):
                    track.train(step, {"loss": float(np.mean(losses, dtype=np.float64))})
                    losses.clear()
                if due(step, every.validate_every, steps):
                    inspect(step)
                # Several processes must ask one another, so they do it now and then.
                often = (
                    jax.process_count() == 1
                    or due(step, every.log_every, steps)
                    or due(step, every.validate_every, steps)
                )
                number = asked_to_leave() if often else 0
                if due(step, every.save_every, steps) or number:
                    check_finite(step, losses, state)
                    checkpoints.save(state, progress)
                if number:
                    raise Interrupted(number)
        except InputError as error:  # such as an image that cannot be used: it costs no step
            if jax.process_count() > 1:
                raise  # one of them alone cannot save
            if start < done and np.isfinite(losses).all() and is_finite(state):
                checkpoints.save(state, progress)
            if number := signal():
                track.say(f"warning: {error}")
                raise Interrupted(number) from None
            raise
        checkpoints.save(state, progress)
        checkpoints.close()
    return progress


def check_finite(step: int, losses: Sequence[Any], state: TrainState) -> None:
    """Raises InputError where the run has gone astray; what is saved is older."""
    if not (np.isfinite(losses).all() and is_finite(state)):
        raise InputError(
            f"the loss or a weight is not finite by step {step}; begin again in another --out with a lower "
            "optim.lr, from random weights or from the package so far (init.package)"
        )


def due(step: int, every: int, steps: int) -> bool:
    """Every so many steps, and at the last."""
    return step % every == 0 or step == steps
