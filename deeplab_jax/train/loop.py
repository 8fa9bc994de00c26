"""The training loop: data, state, resuming, steps, validation, and the best weights as a package."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from deeplab_jax.config import Experiment
from deeplab_jax.data.formats import open_dataset
from deeplab_jax.data.pipeline import eval_batches, train_batches
from deeplab_jax.data.statistics import balancing_weights, count
from deeplab_jax.errors import InputError
from deeplab_jax.evaluate.metrics import Scores, scores
from deeplab_jax.inference.backends import jax as jax_backend
from deeplab_jax.train.checkpoint import Checkpoints, Progress
from deeplab_jax.train.interruption import Interrupted, caught_signals
from deeplab_jax.train.mesh import check_fit, is_main, largest_of_all, make_shardings, part_of_batch, put, wait_for_all
from deeplab_jax.train.run import fit_to_data, open_run
from deeplab_jax.train.start import unlike
from deeplab_jax.train.step import eval_model, init_state, make_eval_step, make_train_step, start_state
from deeplab_jax.train.track import Silence, Tracker


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
    config = fit_to_data(config, classes, len(train_set))
    steps, batch_size, every = config.train.steps, config.train.batch_size, config.train

    # ---------------------------------------------------------------- model and state
    shardings, part = make_shardings(space=config.train.space), part_of_batch()
    check_fit(config, shardings)
    if is_main():
        open_run(config, out)
    wait_for_all("run folder")
    if config.loss.balance:
        weights = balancing_weights(count(train_set, data.threads))
        config = replace(config, loss=replace(config.loss, class_weights=weights, balance=False))
    graph, state = init_state(config, shardings)
    train_step = make_train_step(config, graph, shardings)
    eval_step = make_eval_step(config, graph, shardings)

    # ---------------------------------------------------------------- resume
    checkpoints, progress, notes = Checkpoints(out / "checkpoints"), Progress(), []
    if restored := checkpoints.restore(state):
        state, progress, notes = restored
        notes.append(f"going on after step {state.step}")
    elif config.start.package:
        state, left = start_state(config, graph, state, classes.names, shardings)
        untouched = f"; not its {', '.join(left)}" if left else ""
        notes.append(f"starting from the weights of {config.start.package}{untouched}")
        notes += [f"warning: {note}" for note in unlike(config.start.package, config.model, config.preprocess)]
    for _ in eval_batches(val_set, config.preprocess, batch_size, data, part):
        pass  # a file that cannot be used shows now, not at the first validation

    def validate() -> tuple[Scores, float]:
        confusion, loss, pixels = np.zeros((len(classes), len(classes)), np.int64), 0.0, 0
        for batch in eval_batches(val_set, config.preprocess, batch_size, data, part):
            found = jax.device_get(eval_step(state, put(batch, shardings)))
            confusion, loss, pixels = confusion + found["confusion"], loss + found["loss"], pixels + found["pixels"]
        return scores(confusion, classes.names, len(val_set)), float(loss) / max(int(pixels), 1)

    # ---------------------------------------------------------------- train
    start = done = int(state.step)
    losses = progress.losses
    numbers = range(start, steps)
    batches = train_batches(train_set, config.preprocess, batch_size, numbers, config.train.seed, data, part)
    with make_tracker(out, start, steps, batch_size) as track, caught_signals() as signal:
        pictures = f"{len(train_set)} pictures to train on, {len(val_set)} to validate on"
        track.say(f"{pictures}; {shardings.batch.mesh.size} x {jax.devices()[0].device_kind}")
        for note in notes:
            track.say(note)
        if config.loss.class_weights:
            track.say(f"class weights {', '.join(f'{weight:.3g}' for weight in config.loss.class_weights)}")
        try:
            for step, batch in zip(range(start + 1, steps + 1), batches, strict=True):
                if every.patience and progress.without_gain >= every.patience:
                    track.say(f"no better validation in {progress.without_gain}: stopped after step {done}")
                    break
                state, metrics = train_step(state, put(batch, shardings))
                losses.append(metrics["loss"])
                intervals = (every.log_every, every.validate_every, every.save_every)
                if any(due(step, interval, steps) for interval in intervals) and not np.isfinite(losses).all():
                    raise InputError(f"the loss is not finite by step {step}; lower optim.learning_rate")
                if due(step, every.log_every, steps):
                    track.train(step, {"loss": float(np.mean(losses))})
                    losses.clear()
                if due(step, every.validate_every, steps):
                    result, loss = validate()
                    track.validate(step, result, loss)
                    if progress.is_better(result.miou if every.best_by == "miou" else -loss) and is_main():
                        jax_backend.save(out / "package", eval_model(graph, state), classes, config.preprocess)
                done = step
                # Of several processes all must leave at the same step, so they ask one another now and then.
                asked = jax.process_count() == 1 or due(step, every.log_every, steps)
                number = largest_of_all(signal()) if asked else 0
                if due(step, every.save_every, steps) or number:
                    checkpoints.save(state, progress)
                if number:
                    raise Interrupted(number)
        except InputError:
            if start < done == int(state.step):  # a training picture that cannot be used: the steps so far are kept
                checkpoints.save(state, progress)
            raise
        checkpoints.save(state, progress)
    checkpoints.close()
    return progress


def make_tracker(out: Path, start: int, steps: int, batch_size: int) -> Tracker | Silence:
    return Tracker(out, start, steps, batch_size) if is_main() else Silence()


def due(step: int, every: int, steps: int) -> bool:
    """Every so many steps, and at the last."""
    return step % every == 0 or step == steps
