"""One file a layout; each has `open(root, split) -> Dataset`."""

from pathlib import Path

from deeplab_jax.data.dataset import Dataset
from deeplab_jax.data.formats import camvid, folder, voc
from deeplab_jax.errors import InputError

FORMATS = {"camvid": camvid.open, "folder": folder.open, "voc": voc.open}


def open_dataset(root: Path, format: str, split: str) -> Dataset:
    """The data set in that folder. Raises InputError that names what is missing."""
    if format not in FORMATS:
        raise InputError(f"format {format!r} is not known; choose one of {', '.join(FORMATS)}")
    if not root.is_dir():
        raise InputError(f"the data folder {root} does not exist or is no folder; give its place with --data.root")
    return FORMATS[format](root, split)
