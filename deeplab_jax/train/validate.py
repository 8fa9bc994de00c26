"""Validation between steps: figures over the whole set, and some of its images to look at."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import UInt8

from deeplab_jax.config import Experiment
from deeplab_jax.data.dataset import Dataset
from deeplab_jax.data.loader import HostShard, eval_batches
from deeplab_jax.evaluate.metrics import Scores, scores
from deeplab_jax.train.sharding import Shardings, put
from deeplab_jax.train.step import TrainState, make_eval_step


class Validation(NamedTuple):
    scores: Scores
    loss: float  # mean cross-entropy of a valid pixel
    images: UInt8[np.ndarray, "n h w 3"]  # RGB, the first few as the network sees them
    truth: UInt8[np.ndarray, "n h w"]
    maps: UInt8[np.ndarray, "n h w"]  # the most probable class

    @property
    def figures(self) -> dict[str, float]:
        """Those of all classes together, by the names that records and `train.best_by` have for them."""
        return {
            "loss": self.loss,
            "miou": self.scores.miou,
            "mean_accuracy": self.scores.mean_accuracy,
            "pixel_accuracy": self.scores.pixel_accuracy,
        }


def make_validate(
    config: Experiment,
    graph: nnx.GraphDef,
    shardings: Shardings,
    dataset: Dataset,
    shard: HostShard,
    preempted: Callable[[], int],
) -> Callable[[TrainState], Validation | None]:
    """state -> its validation, or None once the run is preempted; in every process, each with its shard."""
    eval_step = make_eval_step(config, graph, shardings)
    names, batch_size = dataset.classes.names, config.train.batch_size

    def validate(state: TrainState) -> Validation | None:
        confusion, loss, pixels = np.zeros((len(names), len(names)), np.int64), 0.0, 0
        shown = ()
        for batch in eval_batches(dataset, config.preprocess, batch_size, config.data, shard):
            result = jax.device_get(eval_step(state, put(batch, shardings)))
            confusion += result["confusion"]
            loss, pixels = loss + float(result["loss"]), pixels + int(result["pixels"])
            if not shown:
                count = min(len(dataset), len(result["maps"]), len(batch["image"]))
                shown = (batch["image"][:count], batch["mask"][:count], result["maps"][:count])
            if preempted():
                return None
        return Validation(scores(confusion, names, len(dataset)), loss / max(pixels, 1), *shown)

    return validate
