"""Images of a run: its curves, and predictions beside the truth."""

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from deeplab_jax.classes import Classes
from deeplab_jax.image.draw import beside_legend, overlay, plain_text
from deeplab_jax.train.validate import Validation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = UInt8[np.ndarray, "h w 3"]  # RGB

PANEL = 320  # pixels of the longer side
GAP = 6  # pixels


def draw_curves(records: list[dict], path: Path) -> None:
    """Loss, validation mIoU, and the IoU of every class over the steps."""
    with plain_text():
        make_curves(records).savefig(path, dpi=100)


def make_curves(records: list[dict]) -> "Figure":
    from matplotlib.figure import Figure

    by_split = {name: [record for record in records if record["split"] == name] for name in ("train", "val")}
    last = by_split["val"][-1]
    names = [key.removeprefix("iou/") for key in last if key.startswith("iou/")]
    height = max(4, 1.2 + 0.2 * len(names))
    figure = Figure(figsize=(16, height), layout="constrained")
    loss, miou, classes = figure.subplots(1, 3)
    for split, mark in (("train", None), ("val", ".")):
        chosen = by_split[split]
        loss.plot([r["step"] for r in chosen], [r["loss"] for r in chosen], marker=mark, label=split)
    loss.legend()
    miou.plot([r["step"] for r in by_split["val"]], [r["miou"] for r in by_split["val"]], marker=".")
    for axes, title in ((loss, "loss"), (miou, "validation mIoU")):
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        axes.set_ylim(0, 1.05 * axes.dataLim.ymax or 1)

    iou = np.array([[r.get(f"iou/{name}") for r in by_split["val"]] for name in names], float)  # None becomes nan
    drawn = classes.imshow(iou, vmin=0, vmax=1, aspect="auto", interpolation="none")
    figure.colorbar(drawn, ax=classes)
    now = ["-" if np.isnan(value) else f"{value:.2f}" for value in iou[:, -1]]
    labels = [f"{name} {value}" for name, value in zip(names, now, strict=True)]
    classes.set_yticks(range(len(names)), labels, fontsize=8)
    shown = np.unique(np.linspace(0, len(by_split["val"]) - 1, 6).round().astype(int))
    classes.set_xticks(shown, [str(by_split["val"][i]["step"]) for i in shown])
    classes.set(title="validation IoU of every class", xlabel="step")
    return figure


def beside_truth(result: Validation, classes: Classes) -> list[Row]:
    """For every image of a validation: itself, the truth on it, and what is predicted."""
    height, width = result.truth.shape[1:]
    scale = min(PANEL / max(height, width), 1)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    rows = []
    for image, truth, ids in zip(result.images, result.truth, result.maps, strict=True):
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        maps = (cv2.resize(map, size, interpolation=cv2.INTER_NEAREST_EXACT) for map in (truth, ids))
        gap = np.full((size[1], GAP, 3), 255, np.uint8)
        panels = [small, *(overlay(small, map, classes) for map in maps)]
        rows.append(np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1))
    return rows


def draw_predictions(rows: list[Row], classes: Classes, path: Path) -> None:
    """The rows of `beside_truth` under one another, with a legend."""
    gap = np.full((GAP, rows[0].shape[1], 3), 255, np.uint8)
    sheet = np.concatenate([part for row in rows for part in (row, gap)][:-1])
    beside_legend(Image.fromarray(sheet), classes).save(path)
