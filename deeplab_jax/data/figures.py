"""Draws outlines and Supervisely's figures: bitmaps, polygons with holes, rectangles."""

import base64
import io
import reprlib
import zlib
from typing import Any

import cv2
import numpy as np
from PIL import Image

from deeplab_jax.array_types import Bool, Int64, Num
from deeplab_jax.data.annotations import numbers, take
from deeplab_jax.data.dataset import Ids
from deeplab_jax.errors import InputError
from deeplab_jax.image.read import FAULTS

FARTHEST = 1_000_000  # pixels from the image's corner; beyond it a coordinate is a mistake
LONGEST = 2_000_000  # pixels of an outline; time and memory to draw one grow with its length

WITHOUT_AREA = ("line", "polyline", "point", "graph", "cuboid", "cuboid_2d")  # types of figures that cover no pixel

Window = tuple[slice, slice]  # rows and columns of an image
Outline = Num[np.ndarray, "n 2"]  # corners, x and y in pixels


def check_outline(points: Outline, where: str) -> None:
    """Raises InputError where the corners are no numbers or would take long to draw."""
    low, high = points.min(0), points.max(0)
    near = (low >= -FARTHEST).all() and (high <= FARTHEST).all()  # no number is neither
    if not near:
        raise InputError(f"{where} has a coordinate that is no number, or more than {FARTHEST} pixels away")
    if len(points) * (high - low).max() > LONGEST:
        length = np.abs(np.diff(points, axis=0, append=points[:1])).max(1).sum()
        if not length <= LONGEST:
            raise InputError(f"{where} has an outline of {length:.0f} pixels; draw one of {LONGEST} at most")


def window(points: Outline, size: tuple[int, int]) -> Window:
    """The part of an image of (height, width) that an outline can touch; empty where it lies outside."""
    low, high = np.floor(points.min(0)) - 1, np.ceil(points.max(0)) + 2
    (left, right), (top, bottom) = (
        np.clip((low[axis], high[axis]), 0, side).astype(int).tolist() for axis, side in enumerate(size[::-1])
    )
    return slice(top, bottom), slice(left, right)


def draw_figure(ids: Ids, figure: Any, shape: str, label: int, where: str) -> None:
    """Sets the pixels of `ids` that a figure covers.

    Raises:
        InputError: that names where, if the figure is not what Supervisely writes, or of a shape that is not read.
    """
    if shape in ("bitmap", "alpha_mask"):
        _draw_bitmap(ids, take(figure, "bitmap", dict, where), label, f"{where}: bitmap")
    elif shape in ("polygon", "rectangle"):
        points = take(figure, "points", dict, where)
        draw = _draw_polygon if shape == "polygon" else _draw_rectangle
        draw(ids, points, label, f"{where}: {shape}")
    else:
        fault = f"{where}: figures of the type {reprlib.repr(shape)} cannot be read; draw it as a polygon or a bitmap"
        if shape not in WITHOUT_AREA:
            raise InputError(fault)


def _draw_bitmap(ids: Ids, bitmap: dict, label: int, where: str) -> None:
    height, width = ids.shape
    covered = _unpack(take(bitmap, "data", str, where), (height, width), where)
    origin = numbers(take(bitmap, "origin", list, where), f"{where}: origin")
    valid = origin.shape == (2,) and (np.abs(origin) <= FARTHEST).all()
    if not valid:
        raise InputError(f"{where}: origin must be x and y in pixels")
    left, top = np.rint(origin).astype(int).tolist()
    # What lies outside the image is cut off.
    first, last = max(top, 0), min(top + covered.shape[0], height)
    start, stop = max(left, 0), min(left + covered.shape[1], width)
    if first < last and start < stop:
        ids[first:last, start:stop][covered[first - top : last - top, start - left : stop - left]] = label


def _unpack(data: str, size: tuple[int, int], where: str) -> Bool[np.ndarray, "h w"]:
    """At most as large as the image, from the base64 of a PNG, which a zlib stream may hold."""
    height, width = size
    most = 4 * height * (width + 1) + 65536  # bytes of an RGBA image of that size without compression
    stream = zlib.decompressobj()
    try:
        png = base64.b64decode(data)
        whole = png.startswith(b"\x89PNG")
        png = png if whole else stream.decompress(png, most)
    except (ValueError, zlib.error) as error:
        raise InputError(f"{where}: data is not the base64 of a zlib stream ({error})") from None
    if not whole and not stream.eof:
        raise InputError(f"{where}: data is cut short, or larger than a bitmap of {width}x{height} can be")
    try:
        with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
            fits = image.width <= width and image.height <= height
            covered = _covered(image) if fits else None
    except (*FAULTS, Image.DecompressionBombError):
        raise InputError(f"{where}: data holds no readable PNG") from None
    if covered is None:
        raise InputError(f"{where} is {image.width}x{image.height}, but its image {width}x{height}")
    return covered


def _covered(image: Image.Image) -> Bool[np.ndarray, "h w"]:
    """Where a PNG is not transparent, or not 0 if it has no transparency."""
    if "A" in image.getbands() or "transparency" in image.info:
        return np.array(image.convert("RGBA").getchannel("A")) > 0
    return np.asarray(np.array(image).reshape(image.height, image.width, -1).any(-1))


def _draw_polygon(ids: Ids, points: dict, label: int, where: str) -> None:
    height, width = ids.shape
    exterior = _corners(take(points, "exterior", list, where), f"{where}: exterior")
    holes = points.get("interior", [])
    if not (isinstance(holes, list) and all(isinstance(hole, list) for hole in holes)):
        raise InputError(f"{where}: interior must be lists")
    interior = [_corners(hole, f"{where}: interior") for hole in holes]
    if len(exterior) < 3:
        return
    place = rows, columns = window(exterior, (height, width))
    scratch = np.zeros(ids[place].shape, np.uint8)  # a hole takes nothing away from what lies under the polygon
    if scratch.size:
        for outline, value in [(exterior, 1), *((hole, 0) for hole in interior if len(hole) >= 3)]:
            cv2.fillPoly(scratch, [(outline - (columns.start, rows.start)).astype(np.int32)], value)
        ids[place][scratch == 1] = label


def _draw_rectangle(ids: Ids, points: dict, label: int, where: str) -> None:
    corners = _corners(take(points, "exterior", list, where), f"{where}: exterior")
    if len(corners) != 2:
        raise InputError(f"{where} must have two corners, not {len(corners)}")
    (left, top), (right, bottom) = np.clip((corners.min(0), corners.max(0) + 1), 0, None).tolist()
    ids[top:bottom, left:right] = label


def _corners(values: list, where: str) -> Int64[np.ndarray, "n 2"]:
    """x and y in pixels, n from 0."""
    if not values:
        return np.zeros((0, 2), np.int64)
    points = numbers(values, where)
    if points.ndim != 2 or points.shape[1] != 2:
        raise InputError(f"{where} must be a list of x and y")
    check_outline(points, where)
    return np.rint(points).astype(np.int64)
