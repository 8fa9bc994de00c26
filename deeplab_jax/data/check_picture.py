"""The picture that `deeplab data check` makes: samples under their masks, and how often each class occurs."""

from pathlib import Path

import numpy as np

from deeplab_jax.config import IGNORE
from deeplab_jax.data.check import SHOWN, Report
from deeplab_jax.inference.draw import tint


def draw(report: Report, path: Path) -> None:
    """Writes a PNG; void pixels are white in it."""
    from matplotlib.figure import Figure

    rows, classes = len(report.splits), report.splits[0].statistics.classes
    height = max(2.2 * rows, 0.22 * len(classes) + 1)
    figure = Figure(figsize=(18, height + 0.5), layout="constrained")
    layout = figure.add_gridspec(rows, SHOWN + 2)
    for row, checked in enumerate(report.splits):
        for column, sample in enumerate(checked.samples):
            axes = figure.add_subplot(layout[row, column])
            axes.axis("off")
            picture = tint(sample.image, sample.mask, classes)
            void = sample.mask == IGNORE
            picture[void] = (0.3 * picture[void] + 178).astype(np.uint8)
            axes.imshow(picture)
            axes.set_title(f"{checked.split}: {sample.name[:24]}", fontsize=7)
    axes = figure.add_subplot(layout[:, SHOWN:])
    place = np.arange(len(classes))
    for number, checked in enumerate(report.splits):
        share = checked.statistics.pixels / max(checked.statistics.pixels.sum(), 1)
        axes.barh(place + (number - (rows - 1) / 2) * 0.8 / rows, share, 0.8 / rows, label=checked.split)
    axes.set_yticks(place, [name[:24] for name in classes.names], fontsize=8)
    axes.invert_yaxis()
    axes.set(xscale="log", title="share of labelled pixels")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=90)
