"""The `deeplab` command. Every subcommand imports what it needs when it runs."""

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text
from tyro.conf import Positional, arg
from tyro.constructors import PrimitiveConstructorSpec

from deeplab_jax.errors import InputError, check
from deeplab_jax.terminal import console, print_error, say
from deeplab_jax.train.command import train

# Two numbers and no more: of a union tyro gives the option every word that follows, the names of pictures too.
TWO_SIDES = PrimitiveConstructorSpec(
    nargs=2,
    metavar="HEIGHT WIDTH",
    instance_from_str=lambda words: (int(words[0]), int(words[1])),
    is_instance=lambda value: value is None or isinstance(value, tuple),
    str_from_instance=lambda value: [str(side) for side in value or ()],
)
SizeOption = Annotated[tuple[int, int] | None, TWO_SIDES, arg(help_behavior_hint="(default: the package's)")]


@dataclass(frozen=True)
class EvaluationData:
    root: Path  # folder of the data set
    format: str = "folder"  # layout of that folder: ade20k, camvid, cityscapes, coco, folder, voc, ... or tfds:NAME
    split: str = "val"


def demo(out: Path = Path("deeplab-demo")) -> None:
    """The whole way on generated pictures: train, evaluate, export to ONNX, predict, report.

    Args:
        out: folder for everything it makes; a demo that was interrupted goes on there.
    """
    from converters import onnx
    from deeplab_jax.demo import run_demo

    run_demo(out, onnx.export, say)


def evaluate(
    package: Positional[Path],
    data: EvaluationData,
    json_file: Annotated[Path | None, arg(name="json")] = None,
    size: SizeOption = None,
    own_size: bool = False,
) -> None:
    """mIoU and accuracies of a package on a labelled data set.

    Args:
        package: the package folder.
        data: what to evaluate on.
        json_file: also write the figures to this file.
        size: that images are fitted into, in the package's way.
        own_size: run every image in its own size.
    """
    from deeplab_jax.data.formats import open_dataset
    from deeplab_jax.evaluate.evaluate import evaluate as run
    from deeplab_jax.inference.auto import AutoModel

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


@dataclass(frozen=True)
class CheckedData:
    root: Path  # folder of the data set
    format: str = "folder"  # layout of that folder: ade20k, camvid, cityscapes, coco, folder, voc, ... or tfds:NAME
    train_split: str = "train"
    val_split: str = "val"
    threads: int = 4  # that read and decode

    def __post_init__(self):
        check(self.threads >= 1, f"threads={self.threads} must be at least 1")


def check_data(data: CheckedData, picture: Path = Path("data-check.png")) -> None:
    """What a data set holds, and what is wrong with it: every file is read.

    Args:
        data: what to check; a split called test is checked too, where there is one.
        picture: file for samples under their masks, and how often each class occurs.
    """
    from deeplab_jax.data.check import check as run
    from deeplab_jax.data.check_picture import draw
    from deeplab_jax.data.check_table import class_table, summary

    if picture.suffix.lower() != ".png" or not picture.parent.is_dir():
        raise InputError(f"--picture {picture} cannot be written; name a .png in a folder that exists")
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("reading")

        def report_progress(split: str, done: int, total: int) -> None:
            progress.update(task, description=f"reading {split}", completed=done, total=total)

        report = run(data.root, data.format, data.threads, report_progress, data.train_split, data.val_split)
    faults = report.all_faults
    for fault in faults[:50]:
        print_error(fault)
    for warning in report.warnings:
        say(f"warning: {warning}")
    for checked in report.splits:
        say(summary(checked))
    if report.comparable and any(checked.statistics.images for checked in report.splits):
        # A log file has room for more than the 80 columns that are assumed of it.
        wide = console if console.is_terminal else Console(file=console.file, width=max(console.width, 120))
        wide.print(class_table(report))
    if report.comparable and any(checked.samples or checked.failed for checked in report.splits):
        draw(report, picture)
        say(f"picture: {picture}")
    if faults:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise InputError(f"{count} in {data.root}" + ("; the first 50 are above" if len(faults) > 50 else ""))
    say("no faults; see the warnings" if report.warnings else "nothing is wrong")


def predict(
    package: Positional[Path],
    inputs: Positional[tuple[Path, ...]],
    out: Path,
    confidence: float = 0.5,
    size: SizeOption = None,
    own_size: bool = False,
) -> None:
    """Overlays and masks for pictures, or for every picture in folders.

    Args:
        package: the package folder.
        inputs: picture files and folders of such. Folders in them are not gone into; name these too.
        out: folder for `NAME_overlay.jpg` and `NAME_mask.png` (pixel value = class id).
        confidence: less probable pixels become background.
        size: that pictures are fitted into, in the package's way.
        own_size: run every picture in its own size, as packages exported with --dynamic-size do by themselves.
    """
    from deeplab_jax.inference.image_files import find_images
    from deeplab_jax.inference.predict import load
    from deeplab_jax.inference.predict import predict as run

    if not inputs:
        raise InputError("name at least one picture or folder: deeplab predict PACKAGE INPUT... --out DIR")
    found = find_images(inputs)
    model = load(package, input_size(size, own_size), len(found.images))
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("predicting", total=len(found.images))

        def report(path: Path, told: InputError | str | None) -> None:
            if isinstance(told, InputError):
                print_error(told)
            elif told:
                say(told)
            progress.advance(task)

        unreadable = run(model, found.images, out, confidence, report)
    say(f"{len(found.images) - unreadable} of {len(found.images)} pictures predicted into {out}")
    for line in found.left():
        say(line)
    if unreadable:
        raise SystemExit(1)


def input_size(size: tuple[int, int] | None, own_size: bool) -> tuple[int, int] | Literal["image"] | None:
    """What AutoModel calls it."""
    check(not (size and own_size), "--size and --own-size exclude each other; give one of them")
    return "image" if own_size else size


def convert(
    source: Positional[Literal["smp", "torchvision", "tf", "timm"]],
    weights: Positional[Path],
    out: Path,
    encoder: str | None = None,
    output_stride: Literal[8, 16] | None = None,
    atrous_rates: tuple[int, ...] | None = None,
    class_names: Path | None = None,
    multi_grid: tuple[int, ...] | None = None,
    size: tuple[int, int] | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    architecture: Literal["DeepLabV3", "DeepLabV3Plus"] | None = None,
    verify: bool = False,
) -> None:
    """Weights of another library to a JAX package.

    Args:
        source: whose weights: segmentation_models_pytorch's, torchvision's, Google's research/deeplab, or an ImageNet
            classifier of timm or torchvision, which becomes the encoder of an otherwise untrained DeepLab.
        weights: a `.safetensors` file; a PyTorch state dict, checkpoint or TorchScript archive; a folder of
            `save_pretrained`; for tf a checkpoint (`model.ckpt-30000`), a frozen graph (`.pb`) or an `.npz`.
        out: the package folder to write.
        encoder: its name, such as resnet50 or tu-xception65; by default read off the weights.
        output_stride: of the encoder; by default what the file records, else the other library's default.
        atrous_rates: of the pyramid, likewise.
        multi_grid: factors on the dilations of the last stage of tf's ResNets and Xceptions, such as 1 2 4; likewise.
        class_names: a file with one class name a line; by default PASCAL VOC's where the source's published weights
            have those 21, otherwise background, class_1, class_2...
        size: height and width of the network input; by default 512 512, for torchvision 520 520, for tf 513 513.
        mean: that pictures of 0 to 1 were normalised with, red, green and blue; by default what the file records, else
            ImageNet's, for timm's Xceptions 0.5. Google's models have their own.
        std: likewise, the deviations.
        architecture: what an ImageNet encoder is put into; by default DeepLabV3Plus.
        verify: also run the other library, where it is installed, and compare.
    """
    from converters.convert import Options
    from converters.convert import convert as run
    from converters.verify import verify as compare
    from deeplab_jax.data.classes import Classes, default_palette
    from deeplab_jax.data.formats.folder import read_class_names
    from deeplab_jax.inference.backends import jax as jax_backend
    from deeplab_jax.inference.package import check_vacant, one_logit_tells

    check_vacant(out)
    names = read_class_names(class_names) if class_names else None
    classes = len(names) if names else None
    options = Options(encoder, output_stride, atrous_rates, size, multi_grid, mean, std, architecture, classes)
    converted = run(source, weights, options)
    config = converted.model.config
    names = names or converted.class_names or default_class_names(config.num_classes)
    if len(names) != config.num_classes and not (config.num_classes == 1 and one_logit_tells(names)):
        raise InputError(f"{class_names} names {len(names)} classes but {weights} has {config.num_classes}")
    for line in converted.summary():
        say(line)
    if verify:
        comparison = compare(source, weights, converted)
        for line in comparison.lines:
            say(line)
        if not comparison.equal:
            raise InputError(f"the converted model differs from {source}'s; {out} was not written")
    jax_backend.save(out, converted.model, Classes(names, default_palette(len(names))), converted.preprocess)
    say(f"package: {out}")


def default_class_names(count: int) -> tuple[str, ...]:
    from deeplab_jax.data.classes import FOREGROUND

    return (FOREGROUND,) if count == 1 else ("background", *(f"class_{i}" for i in range(1, count)))


@dataclass(frozen=True)
class ExportData:
    root: Path | None = None  # folder of a labelled data set
    format: str = "folder"  # its layout, as for evaluate
    split: str = "val"  # whose mIoU is measured before and after
    calibration_split: str = "train"  # whose pictures show how large values become


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
        dynamic_size: let the graph take pictures of any height and width. They are run in their own size then, and not
            fitted into the package's, unless --size of predict and evaluate says so.
        precision: inside the graph; input and logits are float32 in all of them. torch packages stay float32.
        calibration: pictures, or folders of such, that show int8 and float16 how large values become; by default those
            of the data set.
        data: for int8 and float16: labelled pictures to measure mIoU on, before and after.
        batch: pictures at once that a TensorRT engine takes: least, usual, most; by default 1 1 8.
        height: in pixels, likewise, of an engine with --dynamic-size.
        width: likewise.
    """
    from converters.export import Options, Pictures, Span
    from converters.export import export as run
    from deeplab_jax.data.formats import open_dataset
    from deeplab_jax.inference.image_files import find_images

    if not to:
        raise InputError("--to needs at least one engine: onnx, tensorrt, torch")
    if data.root is None and data != ExportData():
        raise InputError("--data.format, --data.split and --data.calibration-split do nothing without --data.root")
    pictures = Pictures(find_images(calibration).images) if calibration else None
    dataset = open_dataset(data.root, data.format, data.split) if data.root else None
    if data.root and not pictures and precision != "float32":
        pictures = Pictures(open_dataset(data.root, data.format, data.calibration_split))
    spans = (Span(*span) if span else None for span in (batch, height, width))
    options = Options(dynamic_size, precision, pictures, dataset, *spans)
    with console.status("exporting") as status:

        def report(step: str, found: bool = False) -> None:
            say(step) if found else status.update(step)

        exported = run(package, tuple(dict.fromkeys(to)), out, options, report)
    table = Table("engine", "package", "MB", "ms a picture, here")
    for each in exported:
        milliseconds = "not run" if each.milliseconds is None else f"{each.milliseconds:.1f}"
        table.add_row(each.engine, Text(str(each.folder)), f"{each.megabytes:.1f}", milliseconds)
    console.print(table)


COMMANDS = {
    "demo": demo,
    "train": train,
    "evaluate": evaluate,
    "data check": check_data,
    "predict": predict,
    "convert": convert,
    "export": export,
}


def usage() -> str:
    lines = [f"  deeplab {name:10} {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()]
    return "\n".join(["usage: deeplab COMMAND [--help]", "", *lines])


def main() -> int:
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    name, *rest = [" ".join(arguments[:2]), *arguments[2:]] if arguments[0] == "data" else arguments
    if name not in COMMANDS:
        print(f"error: there is no command {name!r}\n{usage()}", file=sys.stderr)
        return 2
    try:
        if name == "train":
            train(rest)
        else:
            tyro.cli(COMMANDS[name], prog=f"deeplab {name}", args=rest)
    except InputError as error:
        print_error(error)
        return 1
    except OSError as error:
        print_error(f"{error.filename}: {error.strerror}" if error.filename else error)
        return 1
    except KeyboardInterrupt as error:
        print("interrupted; the same command goes on" if name in ("train", "demo") else "interrupted")
        return getattr(error, "exit_status", 130)
    return 0
