"""Which of the files that a user names are images, and what is left in their folders."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deeplab_jax.errors import InputError
from deeplab_jax.image.read import holds_image, is_image, is_unread

MOST_NAMED = 20  # of what is left; more are counted


@dataclass(frozen=True)
class ImageFiles:
    """Every input is an image; every entry of a folder among them is in one of the lists."""

    images: list[Path]  # to be read, or refused with the reason
    others: list[Path]
    folders: list[Path]  # which are not gone into

    def left(self) -> list[str]:
        """A line on the files that are no images, and one on folders in folders."""
        kinds = (self.others, "other file"), (self.folders, "folder")
        return [f"{count(paths, kind)} left: {listed(paths)}" for paths, kind in kinds if paths]


def find_images(inputs: Sequence[Path]) -> ImageFiles:
    """The files among the inputs, and what is in the folders among them, sorted by name.

    Raises InputError for an input that does not exist, and for a folder without images.
    """
    result = ImageFiles([], [], [])
    for path in inputs:
        if not path.exists():
            raise InputError(f"{path} does not exist")
        if path.is_dir():
            here = look_into(path)
            without = f"{path} holds no images (.jpg, .png, .tif or what else Pillow reads)"
            if not here.images:
                raise InputError("; ".join([without, *here.left()]))
            result.images.extend(here.images)
            result.others.extend(here.others)
            result.folders.extend(here.folders)
        else:
            if not path.is_file():  # but a pipe, which would be waited for
                raise InputError(f"{path} is no file")
            result.images.append(path)
    return result


def look_into(folder: Path) -> ImageFiles:
    result = ImageFiles([], [], [])
    for path in sorted(folder.iterdir()):
        shown = path.is_file() and not path.name.startswith(".")
        if path.is_dir():
            result.folders.append(path)
        elif shown and (is_image(path) or is_unread(path) or holds_image(path)):
            result.images.append(path)
        else:
            result.others.append(path)
    return result


def count(paths: Sequence[Path], kind: str) -> str:
    return f"{len(paths)} {kind}" + ("" if len(paths) == 1 else "s")


def listed(paths: Sequence[Path]) -> str:
    more = len(paths) - MOST_NAMED
    return ", ".join([path.name for path in paths[:MOST_NAMED]] + ([f"and {more} more"] if more > 0 else []))
