"""How large a package and an image may be, so that nothing takes memory beyond reason. Checked before it is taken."""

from pathlib import Path

from deeplab_jax.errors import InputError

MOST_PIXELS = 2**26  # of an image; its result takes 12 bytes a pixel, and what leads to it as much again
MOST_SIDE = 2**16  # of an image, likewise: what is worked on at a time are whole rows of all classes
MOST_BYTES = 3 * 2**29  # of network input and logits in one forward pass
MOST_CLASSES = 4096
MOST_TEXT = 2**22  # bytes of a JSON or text file in a package


def check_image(height: int, width: int) -> None:
    """Raises InputError for an image that is too large."""
    side = int(MOST_PIXELS**0.5)
    too_large = f"an image of {width}x{height} has more pixels than one of {side}x{side}, the most that is taken"
    if not height * width <= MOST_PIXELS:
        raise InputError(f"{too_large}; cut it up")
    too_long = f"an image of {width}x{height} has a side of more than {MOST_SIDE} pixels, the most that is taken"
    if not max(height, width) <= MOST_SIDE:
        raise InputError(f"{too_long}; cut it up")


def image_bytes(size: tuple[int, int], planes: int) -> int:
    """Of float32 network input and logits of one image, which are so many planes together."""
    return 4 * planes * size[0] * size[1]


def check_forward(place: Path, size: tuple[int, int], planes: int, batch: int) -> None:
    """Raises InputError, which names the place and a size that would do, where so many images are too large."""
    needed = batch * image_bytes(size, planes)
    if needed > MOST_BYTES:
        what = f"{batch} images of {size[1]}x{size[0]} with {planes} planes of input and logits"
        height, width = (max(int(side * (MOST_BYTES / needed) ** 0.5), 1) for side in size)
        raise InputError(
            f"{place}: {what} take {needed >> 20} MiB at once, more than {MOST_BYTES >> 20}; fit them into less with "
            f"size=({height}, {width}), or --size {height} {width}"
        )


def check_text(path: Path) -> None:
    """Raises InputError for a file too large to be what it should be, and for devices and pipes, which never end."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is no file")
    size = path.stat().st_size if path.is_file() else 0
    if not size <= MOST_TEXT:
        raise InputError(f"{path} has {size} bytes, more than the {MOST_TEXT} that are read")
