"""`deeplab evaluate`."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.progress import Progress
from rich.table import Table
from rich.text import Text
from tyro.conf import Positional, arg

from deeplab_jax.cli.size import SizeOption, input_size
from deeplab_jax.cli.terminal import console, say
from deeplab_jax.errors import InputError


@dataclass(frozen=True)
class EvaluationData:
    root: Path  # folder of the data set
    format: str = "folder"  # layout of that folder: ade20k, camvid, cityscapes, coco, folder, voc, ... or tfds:NAME
    split: str = "val"


def evaluate(
    package: Positional[Path],
    data: EvaluationData,
    json_file: Annotated[Path | None, arg(name="json")] = None,
    size: SizeOption = None,
    own_size: bool = False,
) -> None:
    """mIoU and accuracies of a package on a labeled data set.

    Args:
        package: the package folder.
        data: what to evaluate on.
        json_file: also write the figures to this file.
        size: that images are fitted into, in the package's way.
        own_size: run every image in its own size.
    """
    from deeplab_jax.data.formats import open_dataset
    from deeplab_jax.evaluate.evaluate import evaluate as run
    from deeplab_jax.inference.auto_model import AutoModel

    if json_file and (json_file.is_dir() or not json_file.parent.is_dir()):
        raise InputError(f"--json {json_file} cannot be written; name a file in a folder that exists")
    dataset = open_dataset(data.root, data.format, data.split)
    model = AutoModel.from_pretrained(package, size=input_size(size, own_size))
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("evaluating", total=len(dataset))
        result = run(model, dataset, lambda done: progress.update(task, completed=done))
    table = Table("class", "IoU")
    for name, iou in result.per_class_iou.items():
        table.add_row(Text(name), "does not occur" if iou is None else f"{iou:.4f}")
    console.print(table)
    say(
        f"{result.images} images  mIoU {result.miou:.4f}  "
        f"mean accuracy {result.mean_accuracy:.4f}  pixel accuracy {result.pixel_accuracy:.4f}"
    )
    if json_file:
        json_file.write_text(json.dumps(dataclasses.asdict(result), indent=2) + "\n")
