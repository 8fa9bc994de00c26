"""The training loop on one screen. What is due when, preemption, the best so far and saving have files of their own."""

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np

from deeplab_jax.config import Experiment
from deeplab_jax.data.dataset import Dataset
from deeplab_jax.data.formats import open_dataset
from deeplab_jax.data.loader import eval_batches, train_batches
from deeplab_jax.data.statistics import check_learnable
from deeplab_jax.errors import InputError
from deeplab_jax.train.best import MODES, Best, save_package
from deeplab_jax.train.checkpoint import Checkpoints, Progress
from deeplab_jax.train.memory import explain_lack_of_memory
from deeplab_jax.train.preemption import Preempted, Preemption
from deeplab_jax.train.resume import begin_or_resume, describe_run
from deeplab_jax.train.run_data import remember_data
from deeplab_jax.train.run_dir import balance_classes, check_same_classes, fit_to_data, last_checkpoint, open_run
from deeplab_jax.train.schedule import Schedule
from deeplab_jax.train.sharding import Shardings, check_fit, host_shard, is_alone, is_main, make_shardings, put
from deeplab_jax.train.step import TrainState, check_stays_finite, init_state, make_train_step, stays_finite
from deeplab_jax.train.tracking.tracker import NullTracker, Tracker
from deeplab_jax.train.validate import make_validate
from deeplab_jax.train.warm_start import check_init


def train(config: Experiment, out: Path) -> Progress:
    """Trains, or goes on where a run in `out` stopped. Returns where it ended and its best validation figures.

    The run folder then holds config.json, checkpoints/, metrics.jsonl, TensorBoard events, curves.png and package/,
    the best weights by `train.best_by`.

    Raises:
        InputError: for data or settings that cannot be used, or an `out` that holds another run.
        Preempted: after Ctrl-C or SIGTERM, when the run is saved.
    """
    # ---------------------------------------------------------------- data
    data = config.data
    train_set = open_dataset(data.root, data.format, data.train_split)
    val_set = open_dataset(data.root, data.format, data.val_split)
    check_same_classes(data.train_split, train_set.classes, data.val_split, val_set.classes)
    config = fit_to_data(config, train_set.classes, len(train_set))
    if config.init.package and not last_checkpoint(out):
        check_init(config, train_set.classes.names)

    # ---------------------------------------------------------------- devices and run folder
    shardings = make_shardings(spatial_shards=config.train.spatial_shards)
    check_fit(config, shardings)
    check_learnable(train_set, data)
    with explain_lack_of_memory(config), open_run(config, out, train_set.classes):
        for _ in eval_batches(val_set, config.preprocess, config.train.batch_size, data, host_shard(shardings)):
            pass  # a file that cannot be used shows now, not at the first validation
        return run(config, out, train_set, val_set, shardings)


def run(config: Experiment, out: Path, train_set: Dataset, val_set: Dataset, shardings: Shardings) -> Progress:
    """`train` in a run folder that is made."""
    # ---------------------------------------------------------------- model and state
    steps, preprocess, classes, shard = config.train.steps, config.preprocess, train_set.classes, host_shard(shardings)
    config = balance_classes(config, train_set)
    graph, state = init_state(config, shardings)
    train_step = make_train_step(config, graph, shardings)

    # ---------------------------------------------------------------- resume
    checkpoints = Checkpoints(out / "checkpoints")
    state, progress, notes = begin_or_resume(config, out, checkpoints, graph, state, classes.names, shardings)
    start, losses, by = int(state.step), progress.losses, config.train.best_by
    notes += remember_data(out, train_set, val_set, resumed=start > 0)
    keep = partial(save_package, out / "package", graph, classes, preprocess)
    best = Best(progress, by, MODES[by], keep, config.train.patience)

    # ---------------------------------------------------------------- train
    schedule = Schedule(config.train)
    batch_size, seed = config.train.batch_size, config.train.seed
    batches = train_batches(train_set, preprocess, batch_size, range(start, steps), seed, config.data, shard)
    tracker = Tracker(out, start, progress.validated, config, classes) if is_main() else NullTracker()
    with tracker as track, closing(batches), Preemption(schedule) as preemption:
        validate = make_validate(config, graph, shardings, val_set, shard, preemption.signal)
        track.say(*describe_run(config, train_set, val_set, shardings, notes))
        try:
            if schedule.validate(start) and progress.validated < start:  # preempted, the run left it out
                validate_and_keep_best(start, state, validate, best, track)
                if signal := preemption.signal():
                    raise Preempted(signal)
            for step, batch in zip(range(start + 1, steps + 1), batches, strict=True):
                if best.is_final:
                    track.say(f"no better validation in {progress.without_gain}: stopped after step {step - 1}")
                    break
                state, metrics = train_step(state, put(batch, shardings))
                losses.append(metrics["loss"])
                if schedule.sync(step):
                    check_stays_finite(step, losses, state)
                if schedule.log(step):
                    track.train(step, metrics | {"loss": np.mean(losses, dtype=np.float64)})
                    losses.clear()
                if schedule.validate(step):
                    validate_and_keep_best(step, state, validate, best, track)
                signal = preemption.signal_after(step)
                if schedule.save(step) or signal:
                    check_stays_finite(step, losses, state)
                    checkpoints.save(state, progress)
                if signal:
                    raise Preempted(signal)
        except InputError as error:  # such as an image that cannot be used: it costs no step
            if not is_alone():
                raise  # one of several cannot save
            if int(state.step) > start and stays_finite(losses, state):
                checkpoints.save(state, progress)
            if signal := preemption.signal():
                track.say(f"warning: {error}")
                raise Preempted(signal) from None
            raise
        checkpoints.save(state, progress)
        checkpoints.close()
    return progress


def validate_and_keep_best(
    step: int, state: TrainState, validate: Callable, best: Best, track: Tracker | NullTracker
) -> None:
    """Validates; left out where the run is to end now, and owed by the next."""
    if result := validate(state):
        best.update(step, result.figures, state)
        track.validate(step, result)
