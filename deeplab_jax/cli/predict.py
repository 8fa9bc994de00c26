"""`deeplab predict`."""

from pathlib import Path

from rich.progress import Progress
from tyro.conf import Positional

from deeplab_jax.cli.size import SizeOption, input_size
from deeplab_jax.cli.terminal import console, print_error, say
from deeplab_jax.errors import InputError


def predict(
    package: Positional[Path],
    inputs: Positional[tuple[Path, ...]],
    out: Path,
    confidence: float = 0.5,
    size: SizeOption = None,
    own_size: bool = False,
) -> None:
    """Overlays and masks for images, or for every image in folders.

    Args:
        package: the package folder.
        inputs: image files and folders of such. Folders in them are not gone into; name these too.
        out: folder for `NAME_overlay.jpg` and `NAME_mask.png` (pixel value = class id).
        confidence: less probable pixels become background.
        size: that images are fitted into, in the package's way.
        own_size: run every image in its own size, as packages exported with --dynamic-size do by themselves.
    """
    from deeplab_jax.image.listing import find_images
    from deeplab_jax.inference.predict import load
    from deeplab_jax.inference.predict import predict as run

    if not inputs:
        raise InputError("name at least one image or folder: deeplab predict PACKAGE INPUT... --out DIR")
    result = find_images(inputs)
    model = load(package, input_size(size, own_size), len(result.images))
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("predicting", total=len(result.images))

        def report(path: Path, message: InputError | str | None) -> None:
            if isinstance(message, InputError):
                print_error(message)
            elif message:
                say(message)
            progress.advance(task)

        unreadable = run(model, result.images, out, confidence, report)
    say(f"{len(result.images) - unreadable} of {len(result.images)} images predicted into {out}")
    for line in result.left():
        say(line)
    if unreadable:
        raise SystemExit(1)
