"""Predicts files: for every picture an overlay to look at and a mask to work with."""

from collections.abc import Callable, Sequence
from pathlib import Path

from deeplab_jax.data.classes import Classes
from deeplab_jax.data.pictures import list_images, read_image
from deeplab_jax.errors import InputError
from deeplab_jax.inference.auto import SegmentationModel
from deeplab_jax.inference.draw import mask_picture, overlay
from deeplab_jax.inference.limits import MOST_PIXELS


def find_pictures(inputs: Sequence[Path]) -> list[Path]:
    """The files among the inputs, and the images in the folders among them. Raises InputError for what is neither."""
    pictures: list[Path] = []
    for path in inputs:
        if not path.exists():
            raise InputError(f"{path} does not exist")
        pictures += list_images(path) if path.is_dir() else [path]
    return pictures


def predict(
    model: SegmentationModel,
    pictures: Sequence[Path],
    out: Path,
    confidence: float,
    report: Callable[[Path, InputError | None], None],
) -> int:
    """Writes `NAME_overlay.png` and `NAME_mask.png` into `out` for every picture.

    A picture that cannot be read is reported and passed over. Returns how many were. Raises InputError where `out` is
    a folder that the pictures come from.
    """
    if any(path.parent.resolve() == out.resolve() for path in pictures):
        raise InputError(f"{out} holds pictures to predict; choose another --out, lest a file be overwritten")
    classes = Classes(tuple(model.class_names), model.palette)
    out.mkdir(parents=True, exist_ok=True)
    unreadable, taken = 0, set()
    for path in pictures:
        try:
            image = read_image(path, MOST_PIXELS)
        except InputError as error:
            report(path, error)
            unreadable += 1
            continue
        result = model(image, confidence=confidence, input_color_format="rgb")[0]
        ids = result.segmentation_map.numpy()
        name = unused_name(path.stem, taken)
        try:
            overlay(image, ids, classes).save(out / f"{name}_overlay.png")
            mask_picture(ids, classes).save(out / f"{name}_mask.png")
        except OSError as error:
            raise InputError(f"the pictures of {path} cannot be written into {out}: {error}") from None
        report(path, None)
    return unreadable


def unused_name(stem: str, taken: set[str]) -> str:
    """The stem, with a number where another picture already has it; remembers it in `taken`."""
    name = next(n for n in (stem, *(f"{stem}_{i}" for i in range(2, len(taken) + 3))) if n not in taken)
    taken.add(name)
    return name
