"""The image that `deeplab data check` makes: samples under their masks, and how often each class occurs."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deeplab_jax.array_types import Shaped, UInt8
from deeplab_jax.classes import Classes
from deeplab_jax.config import IGNORE
from deeplab_jax.data.check.report import Report
from deeplab_jax.data.check.split import SHOWN, Checked, Stored
from deeplab_jax.data.dataset import Sample
from deeplab_jax.image.draw import overlay, plain_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CELL = 3.3  # inches, the width of a sample
BARS = 30  # classes in one column of the histogram


def draw(report: Report, path: Path) -> None:
    """Writes a PNG."""
    with plain_text():
        make_figure(report).savefig(path, dpi=100)


def make_figure(report: Report) -> "Figure":
    """A row of samples for each split, and below them the shares of all classes."""
    from matplotlib.figure import Figure

    classes = report.splits[0].statistics.classes
    columns = -(-len(classes) // BARS)
    heights = [CELL * tallest(checked) + (0.8 if checked.failed else 0.4) for checked in report.splits]
    bars = 0.2 * min(len(classes), BARS) + 0.9
    figure = Figure(figsize=(SHOWN * CELL, sum(heights) + bars), layout="constrained")
    layout = figure.add_gridspec(len(heights) + 1, 1, height_ratios=[*heights, bars])
    for row, checked in enumerate(report.splits):
        draw_samples(figure.add_subfigure(layout[row]).subplots(1, SHOWN), checked)
    # A few bars that are as wide as the page would be hard to compare.
    axes = figure.add_subfigure(layout[-1]).subplots(1, max(columns, 2))
    for number, ax in enumerate(axes):
        ids = range(number * BARS, min((number + 1) * BARS, len(classes)))
        draw_shares(ax, report.splits, ids) if ids else ax.axis("off")
    axes[0].legend()
    return figure


def tallest(checked: Checked) -> float:
    """Height by width of the tallest image in a row; very tall ones are drawn smaller."""
    shapes = [sample.mask.shape for sample in checked.samples] + [mask.shape for _, mask in checked.failed]
    return min(max((shape[0] / shape[1] for shape in shapes), default=0.2), 1.5)


def draw_samples(axes: Shaped[np.ndarray, "columns"], checked: Checked) -> None:
    """Samples under their masks, then masks that cannot be used."""
    classes, samples = checked.statistics.classes, checked.samples[: SHOWN - len(checked.failed)]
    images = [(f"{checked.split}: {sample.name[:40]}", under_mask(sample, classes)) for sample in samples]
    for fault, mask in checked.failed:
        images.append(("\n".join(textwrap.wrap(f"{checked.split}: {fault}", 50)[:4]), with_contrast(mask)))
    for ax in axes:
        ax.axis("off")
    for ax, (title, image) in zip(axes, images, strict=False):
        ax.imshow(image, cmap="gray", vmin=0, vmax=255)
        ax.set_title(title, fontsize=8)


def under_mask(sample: Sample, classes: Classes) -> UInt8[np.ndarray, "h w 3"]:
    """RGB; void pixels are nearly white."""
    image = overlay(sample.image, sample.mask, classes)
    void = sample.mask == IGNORE
    image[void] = (0.3 * image[void] + 178).astype(np.uint8)
    return image


def with_contrast(mask: Stored) -> UInt8[np.ndarray, "h w ..."]:
    """Values spread evenly from black to white; colors as they are."""
    if mask.ndim == 3:
        if (mask != mask[..., :1]).any():
            return mask
        mask = mask[..., 0]
    values, places = np.unique(mask, return_inverse=True)
    return (places.reshape(mask.shape) * 255 // max(len(values) - 1, 1)).astype(np.uint8)


def draw_shares(ax: "Axes", splits: Sequence[Checked], ids: range) -> None:
    from matplotlib.ticker import FuncFormatter

    names, place = splits[0].statistics.classes.names, np.arange(len(ids))
    shares = np.array([100 * c.statistics.pixels / max(c.statistics.pixels.sum(), 1) for c in splits])
    for number, (checked, share) in enumerate(zip(splits, shares, strict=True)):
        height = 0.8 / len(splits)
        ax.barh(place + (number - (len(splits) - 1) / 2) * height, share[ids], height, label=checked.split)
    ax.set_yticks(place, [names[id][:32] for id in ids], fontsize=8)
    ax.set_ylim(min(len(names), BARS) - 0.4, -0.6)  # the same room for a bar in every column
    ax.set_xlim(min(shares[shares > 0], default=1) / 2, 100)  # before the scale, which asks for bars otherwise
    ax.set(xscale="log", title="% of labeled pixels")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g}"))
    ax.grid(alpha=0.3)
