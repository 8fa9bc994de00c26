"""What a run folder remembers of the data that its weights have seen, in dataset.json."""

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from deeplab_jax.classes import Classes
from deeplab_jax.data.dataset import Dataset
from deeplab_jax.errors import InputError
from deeplab_jax.serialization import load_json, save_json
from deeplab_jax.train.sharding import is_main

FILE = "dataset.json"


@dataclass(frozen=True)
class RunData:
    classes: Classes
    train_images: int
    val_images: int


def check_classes(out: Path, classes: Classes) -> None:
    """Raises InputError where ids stand for other classes than when the run began, or colors for other ids."""
    path = out / FILE
    before = load_json(RunData, path).classes if path.exists() else classes
    pairs = (zip(each.names, each.palette, strict=True) for each in (before, classes))
    for id, (then, now) in enumerate(zip_longest(*pairs)):
        if then != now:
            was, says = (" ".join(map(str, named or ["absent"])) for named in (then, now))
            raise InputError(
                f"{out} holds a run whose class {id} was {was}, and in the data it is {says}; restore it, or "
                f"{elsewhere(out)}"
            )


def elsewhere(out: Path) -> str:
    """How to do what the run in `out` cannot."""
    package = out / "package"
    return f"choose another --out{f'; init.package {package} takes its weights there' if package.exists() else ''}"


def remember_data(out: Path, train_set: Dataset, val_set: Dataset, *, resumed: bool) -> list[str]:
    """Writes what the run is trained on from here; gives what has changed where it goes on, a line each."""
    path, now = out / FILE, RunData(train_set.classes, len(train_set), len(val_set))
    before = load_json(RunData, path) if resumed and path.exists() else now
    if is_main():
        save_json(now, path)
    counts = (("train on", before.train_images, now.train_images), ("validate on", before.val_images, now.val_images))
    return [f"warning: {new} images to {use}, but {old} before" for use, old, new in counts if new != old]
