"""What a run leaves to look at: a progress bar, metrics.jsonl, TensorBoard events, curves and predictions."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import SupportsFloat

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter

from deeplab_jax.classes import Classes
from deeplab_jax.config import Experiment
from deeplab_jax.train.tracking.charts import beside_truth, draw_curves, draw_predictions
from deeplab_jax.train.tracking.wandb_tracker import WeightsAndBiases
from deeplab_jax.train.validate import Validation


class Tracker:
    """Use as a context manager. On resume, records that will be made again are dropped: of steps after `start`, and of
    validations after `validated`."""

    def __init__(self, folder: Path, start: int, validated: int, config: Experiment, classes: Classes):
        self._folder, self._classes = folder, classes
        self._steps, self._batch_size = config.train.steps, config.train.batch_size
        self._wandb = WeightsAndBiases(folder, config) if config.train.wandb else None
        last = {"train": start, "val": validated}
        self._records = [record for record in read_records(folder) if record["step"] <= last[record["split"]]]
        kept = folder / "metrics.jsonl.new"
        kept.write_text("".join(json.dumps(record) + "\n" for record in self._records))
        kept.replace(folder / "metrics.jsonl")
        self._events = SummaryWriter(str(folder), purge_step=start + 1)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._task = self._progress.add_task("training", total=self._steps, completed=start, figures="")
        self._last = (start, time.perf_counter())

    def __enter__(self) -> "Tracker":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        self._events.close()
        if self._wandb:
            self._wandb.close(exit_code=1 if error else 0)

    def say(self, *lines: str) -> None:
        for line in lines:
            self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def train(self, step: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Metrics of the step just done (`loss`, `lr`, `grad_norm`), with the rate since the last call."""
        before, then = self._last
        figures = {name: float(value) for name, value in metrics.items()}
        now = time.perf_counter()
        figures["images_per_second"] = (step - before) * self._batch_size / (now - then)
        self._last = (step, now)
        self._write(step, "train", figures)
        shown = f"loss {figures['loss']:.3f}  {figures['images_per_second']:.1f} images/s"
        self._progress.update(self._task, completed=step, figures=shown)
        if not self._progress.console.is_terminal:  # a log file gets lines, a terminal the bar
            rates = f"lr {figures['lr']:.3g}  gradient norm {figures['grad_norm']:.3g}"
            self.say(f"step {step} of {self._steps}: {shown}  {rates}")

    def validate(self, step: int, validation: Validation) -> None:
        """Figures and images of a validation; its time does not count against images/s."""
        result = validation.scores
        per_class = {f"iou/{name}": iou for name, iou in result.per_class_iou.items()}
        self._write(step, "val", validation.figures | per_class)
        self.say(f"step {step}: validation mIoU {result.miou:.4f}, loss {validation.loss:.4f}")
        draw_curves(self._records, self._folder / "curves.png")
        rows = beside_truth(validation, self._classes)
        draw_predictions(rows, self._classes, self._folder / "predictions.png")
        for number, row in enumerate(rows):
            self._events.add_image(f"val/predictions/{number}", row, step, dataformats="HWC")
        if self._wandb:
            self._wandb.show(step, "val/predictions", rows)
        self._last = (step, time.perf_counter())

    def _write(self, step: int, split: str, figures: Mapping[str, float | None]) -> None:
        record = {"step": step, "split": split, **figures}
        self._records.append(record)
        with (self._folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
        numbers = {f"{split}/{name}": value for name, value in figures.items() if value is not None}
        for name, value in numbers.items():
            self._events.add_scalar(name, value, step)
        if self._wandb:
            self._wandb.log(step, numbers)


class NullTracker:
    """In place of a Tracker in all processes but one."""

    def __enter__(self) -> "NullTracker":
        return self

    def __exit__(self, *_: object) -> None: ...

    def say(self, *lines: str) -> None: ...

    def train(self, step: int, metrics: Mapping[str, SupportsFloat]) -> None: ...

    def validate(self, step: int, validation: Validation) -> None: ...


def read_records(folder: Path) -> list[dict]:
    """The records of metrics.jsonl; a last line that a killed run left half-written is dropped."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]
