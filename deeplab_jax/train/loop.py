"""The training loop, and what surrounds it: the run folder, resuming, and the best weights as a package."""

import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from deeplab_jax.config import Experiment, differences, load_json, save_json, to_dict
from deeplab_jax.data.formats import open_dataset
from deeplab_jax.data.pipeline import eval_batches, train_batches
from deeplab_jax.errors import InputError
from deeplab_jax.evaluate.metrics import Scores, scores
from deeplab_jax.inference.backends import jax as jax_backend
from deeplab_jax.inference.package import PARTIAL
from deeplab_jax.train.checkpoint import Checkpoints
from deeplab_jax.train.mesh import check_batch_size, make_shardings, put
from deeplab_jax.train.start import unlike
from deeplab_jax.train.step import eval_model, init_state, make_eval_step, make_train_step, start_state
from deeplab_jax.train.track import Tracker


def train(config: Experiment, out: Path) -> float:
    """Trains, or goes on where a run in `out` stopped. Returns the best validation mIoU.

    The run folder then holds config.json, checkpoints/, metrics.jsonl, TensorBoard events, curves.png and package/,
    the best weights by validation mIoU.

    Raises:
        InputError: for data or settings that cannot be used, or an `out` that holds another run.
    """
    # ---------------------------------------------------------------- data
    data, steps, batch_size = config.data, config.train.steps, config.train.batch_size
    train_set = open_dataset(data.root, data.format, data.train_split)
    val_set = open_dataset(data.root, data.format, data.val_split)
    classes = train_set.classes
    if len(classes) < 2:
        raise InputError(
            f"{data.root} has one class; segmentation needs two, such as background and {classes.names[0]}"
        )
    if len(classes) != config.model.num_classes:
        raise InputError(
            f"{data.root} has {len(classes)} classes but the model {config.model.num_classes}; "
            f"set num_classes={len(classes)} in the experiment"
        )

    # ---------------------------------------------------------------- model and state
    shardings = make_shardings()
    check_batch_size(batch_size, shardings)
    open_run(config, out)
    graph, state = init_state(config, shardings)
    train_step = make_train_step(config, graph, shardings)
    eval_step = make_eval_step(config, graph, shardings)

    # ---------------------------------------------------------------- resume
    checkpoints = Checkpoints(out / "checkpoints")
    start, best, losses, left = 0, -1.0, [], []
    if restored := checkpoints.restore(state):
        state, figures = restored
        start, best, losses = int(state.step), figures["best_miou"], figures["losses"]
    elif config.start.package:
        state, left = start_state(config, graph, state, classes.names, shardings)
    for _ in eval_batches(val_set, config.preprocess, batch_size, data.threads):
        pass  # a file that cannot be used shows now, not at the first validation

    def save() -> None:
        losses[:] = map(float, losses)
        checkpoints.save(state, {"best_miou": best, "losses": losses})

    def validate() -> Scores:
        confusion = np.zeros((len(classes), len(classes)), np.int64)
        for batch in eval_batches(val_set, config.preprocess, batch_size, data.threads):
            confusion += np.asarray(eval_step(state, put(batch, shardings)))
        return scores(confusion, classes.names, len(val_set))

    # ---------------------------------------------------------------- train
    batches = train_batches(train_set, config.preprocess, batch_size, start, steps, config.train.seed, data.threads)
    intervals = (config.train.log_every, config.train.validate_every, config.train.save_every)
    with Tracker(out, start, steps, batch_size) as track, caught_interrupt() as interrupted:
        pictures = f"{len(train_set)} pictures to train on, {len(val_set)} to validate on"
        track.say(f"{pictures}; {shardings.batch.mesh.size} x {jax.devices()[0].device_kind}")
        if start:
            track.say(f"going on after step {start}")
        elif config.start.package:
            untouched = f"; not its {', '.join(left)}" if left else ""
            track.say(f"starting from the weights of {config.start.package}{untouched}")
            for note in unlike(config.start.package, config.model, config.preprocess):
                track.say(f"warning: {note}")
        done = start
        try:
            for step, batch in zip(range(start + 1, steps + 1), batches, strict=True):
                state, metrics = train_step(state, put(batch, shardings))
                losses.append(metrics["loss"])
                if any(due(step, every, steps) for every in intervals) and not np.isfinite(losses).all():
                    raise InputError(f"the loss is not finite by step {step}; lower optim.learning_rate")
                if due(step, config.train.log_every, steps):
                    track.train(step, {"loss": float(np.mean(losses))})
                    losses.clear()
                if due(step, config.train.validate_every, steps):
                    result = validate()
                    track.validate(step, result)
                    if result.miou > best:
                        best = result.miou
                        jax_backend.save(out / "package", eval_model(graph, state), classes, config.preprocess)
                if due(step, config.train.save_every, steps) or interrupted():
                    save()
                if interrupted():
                    raise KeyboardInterrupt
                done = step
        except InputError:
            if start < done == int(state.step):  # a training picture that cannot be used: the steps so far are kept
                save()
            raise
    checkpoints.close()
    return best


def due(step: int, every: int, steps: int) -> bool:
    """Every so many steps, and at the last."""
    return step % every == 0 or step == steps


@contextmanager
def caught_interrupt() -> Iterator[Callable[[], bool]]:
    """Inside, a first Ctrl-C only makes the yielded function true, so that the step at hand is finished and saved."""
    caught = []
    before = signal.getsignal(signal.SIGINT)
    in_main_thread = threading.current_thread() is threading.main_thread()

    def catch(*_) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(True)
        print("\nfinishing this step and saving; Ctrl-C again leaves at once", flush=True)

    if in_main_thread:
        signal.signal(signal.SIGINT, catch)
    try:
        yield lambda: bool(caught)
    finally:
        if in_main_thread:
            signal.signal(signal.SIGINT, before)


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
    data = replace(config.data, root=Path(), threads=1)
    return replace(config, data=data, train=replace(config.train, log_every=1, save_every=1))
