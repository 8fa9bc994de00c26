"""The training loop, and what surrounds it: the run folder, resuming, and the best weights as a package."""

from pathlib import Path

import jax
import numpy as np

from deeplab_jax.config import Experiment, load_json, save_json, to_dict
from deeplab_jax.data.formats import open_dataset
from deeplab_jax.data.pipeline import eval_batches, train_batches
from deeplab_jax.errors import InputError
from deeplab_jax.evaluate.metrics import Scores, scores
from deeplab_jax.inference.backends import jax as jax_backend
from deeplab_jax.train.checkpoint import Checkpoints
from deeplab_jax.train.mesh import check_batch_size, make_shardings, put
from deeplab_jax.train.step import eval_model, init_state, make_eval_step, make_train_step
from deeplab_jax.train.track import Tracker


def train(config: Experiment, out: Path) -> float:
    """Trains, or goes on where a run in `out` stopped. Returns the best validation mIoU.

    The run folder then holds config.json, checkpoints/, metrics.jsonl, TensorBoard events, curves.png and package/,
    the best weights by validation mIoU.

    Raises:
        InputError: for data or settings that cannot be used, or an `out` that holds another run.
    """
    # ---------------------------------------------------------------- data
    data, steps = config.data, config.train.steps
    train_set = open_dataset(data.root, data.format, "train")
    val_set = open_dataset(data.root, data.format, "val")
    classes = train_set.classes
    if len(classes) != config.model.num_classes:
        raise InputError(
            f"{data.root} has {len(classes)} classes but the model {config.model.num_classes}; "
            f"set num_classes={len(classes)} in the experiment"
        )

    # ---------------------------------------------------------------- model and state
    shardings = make_shardings()
    check_batch_size(config.train.batch_size, shardings)
    open_run(config, out)
    graph, state = init_state(config, shardings)
    train_step = make_train_step(config, graph, shardings)
    eval_step = make_eval_step(config, graph, shardings)

    # ---------------------------------------------------------------- resume
    checkpoints = Checkpoints(out / "checkpoints")
    start, best = 0, -1.0
    if restored := checkpoints.restore(state):
        state, figures = restored
        start, best = int(state.step), figures["best_miou"]

    def validate() -> Scores:
        confusion = np.zeros((len(classes), len(classes)), np.int64)
        for batch in eval_batches(val_set, config.preprocess, config.train.batch_size, data.threads):
            confusion += np.asarray(eval_step(state, put(batch, shardings)))
        return scores(confusion, classes.names, len(val_set))

    # ---------------------------------------------------------------- train
    batches = train_batches(
        train_set, config.preprocess, config.train.batch_size, start, steps, config.train.seed, data.threads
    )
    losses = []
    with Tracker(out, start, steps, config.train.batch_size) as track:
        pictures = f"{len(train_set)} pictures to train on, {len(val_set)} to validate on"
        track.say(f"{pictures}; {shardings.batch.mesh.size} x {jax.devices()[0].device_kind}")
        if start:
            track.say(f"going on after step {start}")
        for step, batch in zip(range(start + 1, steps + 1), batches, strict=True):
            state, metrics = train_step(state, put(batch, shardings))
            losses.append(metrics["loss"])
            if due(step, config.train.log_every, steps):
                track.train(step, {"loss": float(np.mean(losses))})
                losses.clear()
            if due(step, config.train.validate_every, steps):
                result = validate()
                track.validate(step, result)
                if result.miou > best:
                    best = result.miou
                    jax_backend.save(out / "package", eval_model(graph, state), classes, config.preprocess)
            if due(step, config.train.save_every, steps):
                checkpoints.save(state, {"best_miou": best})
    checkpoints.close()
    return best


def due(step: int, every: int, steps: int) -> bool:
    """Every so many steps, and at the last."""
    return step % every == 0 or step == steps


def open_run(config: Experiment, out: Path) -> None:
    """Makes the run folder, or checks that the run in it is this one. Raises InputError that names the difference."""
    path = out / "config.json"
    if not path.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(f"{out} exists and holds no run; choose another --out")
        out.mkdir(parents=True, exist_ok=True)
        save_json(config, path)
        return
    before = load_json(Experiment, path)
    if before != config:
        raise InputError(f"{out} holds a run with {difference(to_dict(before), to_dict(config))}; choose another --out")


def difference(before: dict, now: dict, prefix: str = "") -> str:
    """The first field that differs, as `train.steps=600, not 700`."""
    for name in now:
        if before[name] != now[name]:
            if isinstance(before[name], dict) and isinstance(now[name], dict):
                return difference(before[name], now[name], f"{prefix}{name}.")
            return f"{prefix}{name}={before[name]}, not {now[name]}"
    raise AssertionError("the two are equal")
