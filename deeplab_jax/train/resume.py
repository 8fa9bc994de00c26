"""Where a run begins or goes on."""

from collections.abc import Sequence
from pathlib import Path

import jax
from flax import nnx

from deeplab_jax.config import Experiment
from deeplab_jax.data.dataset import Dataset
from deeplab_jax.train.checkpoint import Checkpoints, Progress
from deeplab_jax.train.run_dir import extension
from deeplab_jax.train.sharding import Shardings
from deeplab_jax.train.step import TrainState, init_from_package
from deeplab_jax.train.warm_start import describe_init, init_warnings


def begin_or_resume(
    config: Experiment,
    out: Path,
    checkpoints: Checkpoints,
    graph: nnx.GraphDef,
    state: TrainState,
    class_names: Sequence[str],
    shardings: Shardings,
) -> tuple[TrainState, Progress, list[str]]:
    """The state that the first of these gives, the run's progress, and what to say of it:

    1. the newest checkpoint of the run that can be read,
    2. the package that the experiment names,
    3. the given state, of random weights.

    Raises:
        InputError: where there are checkpoints and none can be read, or the package does not fit.
    """
    if restored := checkpoints.restore(state):
        state, progress, notes = restored
        step = int(state.step)
        ended = "; all steps are done, a larger train.steps would go on" if step == config.train.steps else ""
        extended = extension(out, config, step)
        if extended:
            progress.without_gain = 0
        return state, progress, [*notes, f"going on after step {step}{ended}", *extended]
    if config.init.package:
        state, left = init_from_package(config, graph, state, class_names, shardings)
        warnings = [f"warning: {note}" for note in init_warnings(config.init, config.model, config.preprocess)]
        return state, Progress(), [describe_init(config.init, left), *warnings]
    return state, Progress(), ["starting from random weights"]


def describe_run(
    config: Experiment, train_set: Dataset, val_set: Dataset, shardings: Shardings, notes: Sequence[str]
) -> list[str]:
    """What a run says before its first step, a line each; `notes` say where it begins."""
    images = f"{len(train_set)} images to train on, {len(val_set)} to validate on"
    devices = f"{shardings.batch.mesh.size} x {jax.devices()[0].device_kind}"
    warnings = [f"warning: {note}" for dataset in (train_set, val_set) for note in dataset.notes]
    weights = ", ".join(f"{weight:.3g}" for weight in config.loss.class_weights)
    return [f"{images}; {devices}", *notes, *warnings, *([f"class weights {weights}"] if weights else [])]
