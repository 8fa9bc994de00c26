"""Figures and images of a run in Weights & Biases, for those who ask for it."""

import uuid
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from deeplab_jax.config import Experiment
from deeplab_jax.errors import InputError, first_line
from deeplab_jax.serialization import to_dict


class WeightsAndBiases:
    """One run there for one run folder, also where it is interrupted and goes on."""

    def __init__(self, folder: Path, config: Experiment):
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise InputError("train.wandb needs another package: pip install 'deeplab_jax[wandb]'") from None
        name = folder / "wandb-id.txt"
        if not name.exists():
            name.write_text(uuid.uuid4().hex)
        try:
            self._run = wandb.init(
                project=config.train.wandb,
                id=name.read_text(),
                resume="allow",
                name=folder.resolve().name,
                dir=folder,
                config=to_dict(config),
            )
        except Exception as error:  # of its own, of the network, or of what checks its settings
            raise InputError(
                f"train.wandb={config.train.wandb}: {first_line(error)}; run `wandb login`, or set WANDB_MODE=offline"
            ) from None
        self._image = wandb.Image

    def log(self, step: int, figures: dict[str, Any]) -> None:
        self._run.log(figures, step=step)

    def show(self, step: int, name: str, images: list[UInt8[np.ndarray, "h w 3"]]) -> None:
        self._run.log({name: [self._image(image) for image in images]}, step=step)

    def close(self, exit_code: int) -> None:
        self._run.finish(exit_code=exit_code)
