"""Which validation is the best so far, and when to stop waiting for a better one."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from flax import nnx

from deeplab_jax.classes import Classes
from deeplab_jax.config import PreprocessConfig
from deeplab_jax.package import jax_weights
from deeplab_jax.train.checkpoint import Progress
from deeplab_jax.train.sharding import is_main
from deeplab_jax.train.step import TrainState, eval_model

Mode = Literal["max", "min"]
MODES: dict[str, Mode] = {"miou": "max", "loss": "min"}  # of train.best_by


class Best:
    """The best validation so far by one of its figures: which it was is in the run's progress.

    Args:
        progress: of the run; an update changes all but its losses.
        by: the name of the figure.
        mode: whether the largest is the best, or the smallest.
        keep: is given the state of every validation that is the best so far.
        patience: validations without a better one, after which a run ends; None: it does not.
    """

    def __init__(
        self,
        progress: Progress,
        by: str,
        mode: Mode,
        keep: Callable[[TrainState], None],
        patience: int | None = None,
    ):
        self._progress, self._by, self._mode, self._keep, self._patience = progress, by, mode, keep, patience

    def update(self, step: int, figures: Mapping[str, float], state: TrainState) -> None:
        """Takes note of a validation, and keeps the state of the best. One that only equals the best is not better."""
        progress, figure = self._progress, figures[self._by]
        if self._is_better(figure):
            self._keep(state)  # first: where it fails, the validation is owed
            progress.best, progress.without_gain = figure, 0
        else:
            progress.without_gain += 1
        progress.validated = step

    def _is_better(self, figure: float) -> bool:
        best = self._progress.best
        if math.isnan(figure) or best is None:
            return not math.isnan(figure)
        return figure > best if self._mode == "max" else figure < best

    @property
    def is_final(self) -> bool:
        """Whether the run's patience is over."""
        return self._patience is not None and self._progress.without_gain >= self._patience


def save_package(
    folder: Path, graph: nnx.GraphDef, classes: Classes, preprocess: PreprocessConfig, state: TrainState
) -> None:
    """The weights of this moment, or their moving average, as a package; written by one process alone."""
    if is_main():
        jax_weights.save(folder, eval_model(graph, state), classes, preprocess)
