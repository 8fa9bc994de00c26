"""The words and the table of `deeplab data check`."""

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table
from rich.text import Text

from deeplab_jax.config import IGNORE
from deeplab_jax.data.check.hints import ranges
from deeplab_jax.data.check.report import Report
from deeplab_jax.data.check.split import Checked
from deeplab_jax.data.statistics import balancing_weights


def summary(checked: Checked) -> str:
    """One line on a split."""
    result = checked.statistics
    if not result.images:
        return f"{checked.split}: none of {checked.size} images can be used"
    sizes = ", ".join(f"{width}x{height} ({count})" for (height, width), count in result.sizes.most_common(4))
    more = f" and {len(result.sizes) - 4} more" if len(result.sizes) > 4 else ""
    void = 100 * result.void / max(result.pixels.sum() + result.void, 1)
    ids = ranges([*np.flatnonzero(result.pixels).tolist(), *[IGNORE] * (result.void > 0)])
    return f"{checked.split}: {result.images} images of {sizes}{more}; {void:.1f} % void; ids in the masks {ids}"


def class_table(report: Report) -> Table:
    """How often every class occurs, and what to weigh it with in training. All splits have the same classes."""
    splits = [(checked.split, checked.statistics) for checked in report.splits]
    trained = next((result for split, result in splits if split == report.train and result.pixels.any()), None)
    weights = [f"{weight:.3g}" for weight in balancing_weights(trained)] if trained else None
    names = report.splits[0].statistics.classes.names
    figures = [*(f"{split} %" for split, _ in splits), "images", "suggested\nweight"]
    table = Table(
        Column("id", justify="right"),
        Column("class", overflow="ellipsis"),  # where there is no room, names break between words only
        *(Column(Text(figure), justify="right") for figure in figures),
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for id, name in enumerate(names):
        shares = [f"{100 * result.pixels[id] / max(result.pixels.sum(), 1):.3g}" for _, result in splits]
        images = sum(int(result.occurrences[id]) for _, result in splits)
        table.add_row(str(id), Text(name), *shares, str(images), weights[id] if weights else "-")
    return table
