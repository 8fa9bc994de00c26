"""The whole way on generated images, from nothing to an exported model and a report."""

import html
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from deeplab_jax.array_types import UInt8
from deeplab_jax.config import (
    AugmentConfig,
    DataConfig,
    Experiment,
    LossConfig,
    OptimConfig,
    PreprocessConfig,
    TrainConfig,
)
from deeplab_jax.data.dataset import Dataset
from deeplab_jax.data.formats import open_dataset
from deeplab_jax.data.generate import CLASS_NAMES, generate
from deeplab_jax.evaluate.evaluate import evaluate
from deeplab_jax.evaluate.metrics import Scores
from deeplab_jax.image.draw import beside_legend, overlay, side_by_side
from deeplab_jax.inference.auto_model import AutoModel, SegmentationModel
from deeplab_jax.models import presets
from deeplab_jax.package.folder import check_vacant
from deeplab_jax.train.loop import train

MARK = ".deeplab-demo"  # marks a folder whose contents the demo may replace
SIZE = 96  # pixels, height and width of the generated images
SHOWN = 6  # overlays drawn


def demo_experiment(root: Path) -> Experiment:
    """Half the width of ResNet-18 will do for five classes, and Dice loss finds the small shapes early."""
    devices = jax.device_count()
    batch_size = -(-8 // devices) * devices
    model = presets.smp_deeplabv3plus("resnet18", classes=len(CLASS_NAMES), decoder_channels=128)
    return Experiment(
        model=replace(model, encoder=replace(model.encoder, width=32)),
        data=DataConfig(root=root, format="folder"),
        preprocess=PreprocessConfig(size=(SIZE, SIZE)),
        augment=AugmentConfig(crop=(SIZE, SIZE), scale=(0.8, 1.3)),
        loss=LossConfig(dice=2.0),
        optim=OptimConfig(lr=0.1, warmup=10, ema_decay=0.95),
        train=TrainConfig(steps=400, batch_size=batch_size, validate_every=100, save_every=100),
    )


def run_demo(out: Path, export_onnx: Callable[[Path, Path], float], say: Callable[[str], None]) -> None:
    """Everything goes into `out`: data, run, ONNX package, overlays and report.html.

    Raises:
        InputError: where `out` holds anything but an earlier demo.
    """
    data, run, onnx = out / "data", out / "run", out / "onnx"
    if out.exists() and not (out / MARK).exists():
        check_vacant(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()
    say("== 1  images")
    generate(data, SIZE)
    say(f"generated images with masks: {data}")
    say("== 2  training a slim DeepLabV3+ ResNet-18 from random weights")
    train(demo_experiment(data), run)
    say("== 3  exporting to ONNX")
    shutil.rmtree(onnx, ignore_errors=True)
    say(f"largest difference from JAX {export_onnx(run / 'package', onnx):.1e} of the largest logit")
    say("== 4  evaluating both packages with the same code")
    test_set = open_dataset(data, "folder", "test")
    models = {"JAX": AutoModel.from_pretrained(run / "package"), "ONNX": AutoModel.from_pretrained(onnx)}
    results = {engine: evaluate(model, test_set) for engine, model in models.items()}
    for engine, result in results.items():
        say(f"{engine:5} test mIoU {result.miou:.4f}  pixel accuracy {result.pixel_accuracy:.4f}")
    overlays = draw_overlays(models["ONNX"], test_set, out / "overlays")
    write_report(out, results, overlays)
    say("== done")
    say(
        f"report      {out / 'report.html'}\noverlays    {out / 'overlays'}\ncurve       {run / 'curves.png'}\n"
        f"packages    {run / 'package'} (JAX), {onnx} (ONNX)\n\n"
        f"Next, on your own images: lay them out like {data}, copy experiments/recipes/camvid_resnet18.py, and\n"
        "  deeplab train EXPERIMENT.py --data.root DIR --data.format folder --out RUN\n"
        "  deeplab predict RUN/package IMAGE... --out DIR"
    )


def draw_overlays(model: SegmentationModel, dataset: Dataset, folder: Path) -> list[Path]:
    """Image, truth and prediction side by side, for the first images of the data set."""
    folder.mkdir(exist_ok=True)
    paths = []
    for index in range(SHOWN):
        sample = dataset[index]
        ids = model(np.ascontiguousarray(sample.image[..., ::-1]), confidence="argmax")[0].segmentation_map.numpy()
        panels = [
            enlarge(sample.image),
            *(enlarge(overlay(sample.image, i, dataset.classes)) for i in (sample.mask, ids)),
        ]
        paths.append(folder / f"{Path(sample.name).stem}.png")
        beside_legend(side_by_side(panels), dataset.classes).save(paths[-1])
    return paths


def enlarge(image: UInt8[np.ndarray, "h w 3"], factor: int = 3) -> Image.Image:
    height, width = image.shape[:2]
    return Image.fromarray(image).resize((factor * width, factor * height), Image.Resampling.NEAREST)


def write_report(out: Path, results: dict[str, Scores], overlays: list[Path]) -> None:
    """report.html, with the figures of every engine, the curve and the overlays."""
    figures = [
        {"mIoU": r.miou, "pixel accuracy": r.pixel_accuracy} | {f"IoU of {n}": v for n, v in r.per_class_iou.items()}
        for r in results.values()
    ]
    cells = "".join(
        f"<tr><td>{html.escape(label)}</td>"
        + "".join("<td>-</td>" if row[label] is None else f"<td>{row[label]:.4f}</td>" for row in figures)
        + "</tr>"
        for label in figures[0]
    )
    overlay_tags = "".join(f'<img src="{path.relative_to(out).as_posix()}" alt="{path.stem}">' for path in overlays)
    (out / "report.html").write_text(
        f"""<!doctype html>
<meta charset="utf-8">
<title>DeepLab demo</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2rem auto; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse }} td, th {{ padding: .2rem 1rem; border-bottom: 1px solid #ddd; text-align: left }}
img {{ max-width: 100%; display: block; margin: .5rem 0 }}
</style>
<h1>A slim DeepLabV3+ ResNet-18 on generated images</h1>
<p>Trained from random weights, exported to ONNX; both packages evaluated on the test split by the same code.</p>
<table><tr><th></th>{"".join(f"<th>{engine}</th>" for engine in results)}</tr>{cells}</table>
<h2>Training</h2>
<img src="run/curves.png" alt="training loss and validation mIoU">
<h2>Test images: image, truth, prediction</h2>
{overlay_tags}
"""
    )
