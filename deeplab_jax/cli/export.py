"""`deeplab export`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.table import Table
from rich.text import Text
from tyro.conf import Positional

from deeplab_jax.cli.terminal import console, say
from deeplab_jax.errors import InputError


@dataclass(frozen=True)
class ExportData:
    root: Path | None = None  # folder of a labeled data set
    format: str = "folder"  # its layout, as for evaluate
    split: str = "val"  # whose mIoU is measured before and after
    calibration_split: str = "train"  # whose images show how large values become


def export(
    package: Positional[Path],
    to: tuple[Literal["onnx", "tensorrt", "torch"], ...],
    out: Path,
    dynamic_size: bool = False,
    precision: Literal["float32", "float16", "int8"] = "float32",
    calibration: tuple[Path, ...] = (),
    data: ExportData = ExportData(),
    batch: tuple[int, int, int] | None = None,
    height: tuple[int, int, int] | None = None,
    width: tuple[int, int, int] | None = None,
) -> None:
    """A JAX package to packages for other engines, checked against JAX before they are written.

    Args:
        package: the JAX package folder.
        to: the engines; several go into folders of these names in `out`.
        out: the package folder to write.
        dynamic_size: let the graph take images of any height and width. They are run in their own size then, and not
            fitted into the package's, unless --size of predict and evaluate says so.
        precision: inside the graph; input and logits are float32 in all of them. torch packages stay float32.
        calibration: images, or folders of such, that show int8 and float16 how large values become; by default those
            of the data set.
        data: for int8 and float16: labeled images to measure mIoU on, before and after.
        batch: images at once that a TensorRT engine takes: least, usual, most; by default 1 1 8.
        height: in pixels, likewise, of an engine with --dynamic-size.
        width: likewise.
    """
    from converters.export.export import Images, Options, Span
    from converters.export.export import export as run
    from deeplab_jax.data.formats import open_dataset
    from deeplab_jax.image.listing import find_images

    if not to:
        raise InputError("--to needs at least one engine: onnx, tensorrt, torch")
    if data.root is None and data != ExportData():
        raise InputError("--data.format, --data.split and --data.calibration-split do nothing without --data.root")
    images = Images(find_images(calibration).images) if calibration else None
    dataset = open_dataset(data.root, data.format, data.split) if data.root else None
    if data.root and not images and precision != "float32":
        images = Images(open_dataset(data.root, data.format, data.calibration_split))
    spans = (Span(*span) if span else None for span in (batch, height, width))
    options = Options(dynamic_size, precision, images, dataset, *spans)
    with console.status("exporting") as status:

        def report(step: str, result: bool = False) -> None:
            say(step) if result else status.update(step)

        exported = run(package, tuple(dict.fromkeys(to)), out, options, report)
    table = Table("engine", "package", "MB", "ms an image, here")
    for each in exported:
        milliseconds = "not run" if each.milliseconds is None else f"{each.milliseconds:.1f}"
        table.add_row(each.engine, Text(str(each.folder)), f"{each.megabytes:.1f}", milliseconds)
    console.print(table)
