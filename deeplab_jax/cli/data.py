"""`deeplab data check`."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from deeplab_jax.cli.terminal import console, print_error, say
from deeplab_jax.errors import InputError


@dataclass(frozen=True)
class CheckedData:
    root: Path  # folder of the data set
    format: str = "folder"  # layout of that folder: ade20k, camvid, cityscapes, coco, folder, voc, ... or tfds:NAME
    train_split: str = "train"
    val_split: str = "val"
    threads: int = 4  # that read and decode

    def __post_init__(self):
        if self.threads < 1:
            raise InputError(f"threads={self.threads} must be at least 1")


def check_data(data: CheckedData, plot: Path = Path("data-check.png")) -> None:
    """What a data set holds, and what is wrong with it: every file is read.

    Args:
        data: what to check; a split called test is checked too, where there is one.
        plot: file for samples under their masks, and how often each class occurs.
    """
    from deeplab_jax.data.check.plot import draw
    from deeplab_jax.data.check.report import check as run
    from deeplab_jax.data.check.table import class_table, summary

    if plot.suffix.lower() != ".png" or not plot.parent.is_dir():
        raise InputError(f"--plot {plot} cannot be written; name a .png in a folder that exists")
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
        draw(report, plot)
        say(f"plot: {plot}")
    if faults:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise InputError(f"{count} in {data.root}" + ("; the first 50 are above" if len(faults) > 50 else ""))
    say("no faults; see the warnings" if report.warnings else "nothing is wrong")
