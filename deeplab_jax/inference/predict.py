"""Predicts image files: for each an overlay to look at and a mask to work with.

Several are read, run, drawn and written at a time, as most of that leaves Python's lock to the others.
"""

import errno
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path

import cv2
import numpy as np

from deeplab_jax.array_types import UInt, UInt8
from deeplab_jax.classes import Classes
from deeplab_jax.errors import InputError
from deeplab_jax.image.draw import mask_image, overlay_with_legend
from deeplab_jax.image.read import read_header, read_image
from deeplab_jax.inference.auto_model import AutoModel, SegmentationModel, as_threshold
from deeplab_jax.package.find import find_package
from deeplab_jax.package.folder import PARTIAL, InputSize, read_package
from deeplab_jax.package.limits import MOST_PIXELS

CORES = os.cpu_count() or 1
THREADS = min(CORES, 4)  # each with an image, from its file to its results
MOST_AT_ONCE = 2**26  # pixels of the images in work, each of which takes up to 15 bytes; two of 24 megapixels fit
JPEG_SIDE = 65500  # pixels that a JPEG has at most
SHARP_COLORS = 2**22  # pixels up to which an overlay's colors have them all; beyond, a quarter, as a camera's have

# Called once an image, in their order, with what is wrong, what is worth knowing, or None.
Report = Callable[[Path, InputError | str | None], None]


def load(package: Path, size: InputSize | None, count: int) -> SegmentationModel:
    """The model for so many images. ONNX Runtime's threads share the cores where several images are run at a time."""
    package = find_package(package, None)
    alone = count < 2 * THREADS or read_package(package, size).any_size
    return AutoModel.from_pretrained(package, size=size, threads=None if alone else -(-CORES // THREADS))


def predict(model: SegmentationModel, images: Sequence[Path], out: Path, confidence: float, report: Report) -> int:
    """Writes `NAME_overlay.jpg` and `NAME_mask.png` into `out` for every image, each file whole or not at all.

    An image that cannot be read or run is reported and passed over. Returns how many were.

    Raises:
        InputError: where `out` is a folder that the images come from, or cannot be written.
    """
    as_threshold(confidence)  # before any is read
    if any(path.parent.resolve() == out.resolve() for path in images):
        raise InputError(f"{out} holds images to predict; choose another --out, lest a file be overwritten")
    out.mkdir(parents=True, exist_ok=True)
    work = Work(model, out, confidence)
    waiting: deque[tuple[Path, Future[InputError | str | None]]] = deque()
    unreadable = 0

    def finish_first() -> None:
        nonlocal unreadable
        path, future = waiting.popleft()
        message = future.result()
        unreadable += isinstance(message, InputError)
        report(path, message)

    pool = ThreadPoolExecutor(THREADS)
    try:
        for number, (path, name) in enumerate(zip(images, unused_names(images), strict=True)):
            # The first goes alone: what an engine compiles for it the others find.
            while len(waiting) > (0 if number == 1 else 2 * THREADS):
                finish_first()
            waiting.append((path, pool.submit(work.predict, path, name)))
        while waiting:
            finish_first()
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C too those in work are written whole
    return unreadable


class Work:
    """What is done to one image; from several threads."""

    def __init__(self, model: SegmentationModel, out: Path, confidence: float):
        self._model, self._out, self._confidence = model, out, confidence
        self._classes = Classes(tuple(model.class_names), model.palette)
        self._pixels, self._changed = 0, threading.Condition()

    def predict(self, path: Path, name: str) -> InputError | str | None:
        """What is to be reported. Raises InputError where the results cannot be written."""
        header = read_header(path)
        with self._room(header.pixels):
            try:
                image = read_image(path, MOST_PIXELS)
                ids = self._model.class_ids(image, self._confidence, "rgb")
            except InputError as error:  # not that one is returned: it holds on to the image
                return InputError(str(error) if str(path) in str(error) else f"{path}: {error}")
            try:
                self._write(image, ids, name)
            except OSError as error:
                refused = InputError(f"the results of {path} cannot be written into {self._out}: {error}")
                if error.errno == errno.ENAMETOOLONG:  # of this one alone
                    return refused
                raise refused from None
        notes = [f"{path} holds several frames, of which the first was predicted"] if header.paged else []
        if name != path.stem:
            notes.append(f"{path} was predicted as {name}, since another image is called {path.stem}")
        return "; ".join(notes) or None

    @contextmanager
    def _room(self, pixels: int) -> Iterator[None]:
        """Waits until an image of that size may be taken into work."""
        if self._model.own_size:
            pixels = MOST_AT_ONCE  # the network itself takes many times what the image takes
        with self._changed:
            self._changed.wait_for(lambda: self._pixels == 0 or self._pixels + pixels <= MOST_AT_ONCE)
            self._pixels += pixels
        try:
            yield
        finally:
            with self._changed:
                self._pixels -= pixels
                self._changed.notify_all()

    def _write(self, image: UInt8[np.ndarray, "h w 3"], ids: UInt[np.ndarray, "h w"], name: str) -> None:
        with ThreadPoolExecutor(1) as beside:  # a core is idle where there is one image alone
            mask = beside.submit(self._write_mask, ids, name)
            self._write_overlay(image, ids, name)
            mask.result()

    def _write_overlay(self, image: UInt8[np.ndarray, "h w 3"], ids: UInt[np.ndarray, "h w"], name: str) -> None:
        sheet = overlay_with_legend(image, ids, self._classes)
        # A JPEG takes a tenth of the time and of the space of a PNG, and is only looked at.
        suffix, options = ".png", [cv2.IMWRITE_PNG_COMPRESSION, 1]
        if max(sheet.shape) <= JPEG_SIDE:
            sharp = sheet.size <= 3 * SHARP_COLORS
            sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444 if sharp else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
            suffix, options = ".jpg", [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
        _, data = cv2.imencode(suffix, sheet, options)
        write_whole(self._out / f"{name}_overlay{suffix}", lambda part: part.write_bytes(data.data))

    def _write_mask(self, ids: UInt[np.ndarray, "h w"], name: str) -> None:
        mask = mask_image(ids, self._classes)
        write_whole(self._out / f"{name}_mask.png", lambda part: mask.save(part, "PNG", compress_level=1))


def write_whole(path: Path, save: Callable[[Path], object]) -> None:
    """Saves a file beside its place and then moves it there. Raises OSError."""
    part = path.with_name(f"{PARTIAL}{os.getpid()}-{threading.get_ident()}")
    try:
        save(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def unused_names(images: Sequence[Path]) -> Iterator[str]:
    """The stem of every image, with a number where an earlier one has it, on disks that know no capitals too."""
    taken: set[str] = set()
    for stem in (path.stem for path in images):
        numbered = (f"{stem}_{number}" for number in count(2))
        name = next(name for name in chain([stem], numbered) if name.casefold() not in taken)
        taken.add(name.casefold())
        yield name
