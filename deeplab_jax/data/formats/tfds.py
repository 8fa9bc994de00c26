"""Builders of TensorFlow Datasets that were prepared as ArrayRecord; they are read without TensorFlow.

    ROOT/NAME/[CONFIG/]VERSION/   features.json, dataset_info.json, *.array_record-*

ROOT is what TFDS calls `data_dir`, or the folder of the version itself. `MASK.labels.txt` in that folder, where MASK is
the key of the mask, holds the names of the classes: TFDS writes it for a LabeledImage, the user may for any other mask.
"""

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deeplab_jax.array_types import Int64, Shaped, UInt8
from deeplab_jax.classes import Classes, default_palette
from deeplab_jax.config import IGNORE
from deeplab_jax.data.dataset import Sample
from deeplab_jax.data.formats import ade20k, cityscapes
from deeplab_jax.data.formats.folder import read_class_names
from deeplab_jax.data.tfds_builder import choose, import_tfds, open_builder
from deeplab_jax.errors import InputError, first_line
from deeplab_jax.image import read
from deeplab_jax.image.read import size_of

IMAGES = ("image", "image_left")  # usual keys of features, the likeliest first
MASKS = ("segmentation_label", "segmentation_mask", "segmentation", "annotation", "label_map", "mask", "label")
WITHOUT = "prepare the builder anew without it"  # what to do about an image that cannot be read


@dataclass(frozen=True)
class Masks:
    """What the values of a builder's masks mean."""

    key: str  # of the feature
    classes: Classes
    ids: Mapping[int, int]  # every value a mask may hold -> class id or IGNORE
    in_red: bool = False  # whether masks are color images with the value in the red channel
    notes: tuple[str, ...] = ()  # what looks like a mistake


def with_palette(names: Iterable[str]) -> Classes:
    names = tuple(names)
    return Classes(names, default_palette(len(names)))


_, _CITY_NAMES, _CITY_COLORS = zip(*cityscapes.CLASSES, strict=True)
# scene_parse150 of TFDS has the masks of ADE20K's instances: red is the number of a thing, 0 for none, and green that
# of the instance. These are the things in order, each by its place among the 150 classes of scene parsing, from 1.
_THINGS = """
8 9 11 13 15 16 19 20 21 23 24 25 28 31 32 33 34 36 37 38 39 40 42 43 44 45 46 48 50 51 54 56 57 58 59 63 65 66 67 68
70 71 72 73 74 75 76 77 79 81 82 83 84 86 87 88 89 90 91 93 94 96 98 99 103 104 105 108 109 111 112 113 116 117 119 120
121 122 124 125 126 127 128 130 131 133 134 135 136 137 138 139 140 143 144 145 147 148 149 150
"""
KNOWN = {
    "cityscapes": Masks("segmentation_label", Classes(_CITY_NAMES, _CITY_COLORS), cityscapes.LABEL_IDS),
    "oxford_iiit_pet": Masks("segmentation_mask", with_palette(("pet", "background", "border")), {1: 0, 2: 1, 3: 2}),
    "scene_parse150": Masks(
        "annotation",
        with_palette(ade20k.CLASSES[int(place) - 1] for place in _THINGS.split()),
        {0: IGNORE} | {value: value - 1 for value in range(1, 101)},
        in_red=True,
    ),
}


@dataclass(frozen=True)
class Records:
    """The examples of a split as they are stored. A copy in another process opens the shards anew."""

    source: Any  # TFDS's data source of serialized examples
    features: Any  # TFDS's FeaturesDict of what is read of each
    place: str  # the split and its folder, as messages name them

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Images as bytes of files and tensors as arrays, by key. Raises InputError for what cannot be read."""
        skip = import_tfds().decode.SkipDecoding
        as_files = {key: skip() for key, feature in self.features.items() if _is_image(feature)}
        try:
            stored = self.features.deserialize_example_np(self.source[index], decoders=as_files)
            # A shard that was cut to its first block yields empty examples, and no error.
            fault = "it is empty" if any(value is None for value in stored.values()) else ""
        except Exception as error:  # of array_record, Protocol Buffers or TFDS, each of its own kind
            stored, fault = {}, first_line(error)
        if fault:
            raise InputError(
                f"example {index} of {self.place} cannot be read ({fault}); copy its shard or prepare the builder anew"
            )
        return stored


@dataclass(frozen=True)
class Prepared:
    """The images and masks of a split."""

    records: Records
    image: str  # key of the feature
    masks: Masks

    @property
    def classes(self) -> Classes:
        return self.masks.classes

    @property
    def notes(self) -> tuple[str, ...]:
        return self.masks.notes

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        stored, place = self.records[index], f"of example {index} of {self.records.place}"
        image = decode_image(stored[self.image], f"the image {place}")
        values = decode_mask(stored[self.masks.key], f"the mask {place}", self.masks.in_red)
        if image.shape[:2] != values.shape:
            mend = read.mend_of_turned(stored[self.image], image.shape[:2], values.shape) or "prepare it anew"
            raise InputError(f"the mask {place} is {size_of(values)} but the image {size_of(image)}; {mend}")
        ids = np.full(values.shape, IGNORE, np.uint8)
        for value in np.unique(values[values != IGNORE]).tolist():
            if value not in self.masks.ids:
                raise InputError(
                    f"the mask {place} holds the value {value}, which is none of its {len(self.classes)} classes; name "
                    "every class or correct the mask"
                )
            ids[values == value] = self.masks.ids[value]
        return Sample(image, ids, f"{index:06d}")


def open(root: Path, split: str, name: str) -> Prepared:
    """A split, or a slice of one in TFDS's syntax, of the builder NAME, NAME/CONFIG or NAME/CONFIG:VERSION.

    `val` is also found as `validation`. Classes without names are numbered up to the largest value in any mask of the
    builder, for which all of them are read once.
    """
    builder = open_builder(root, name)
    features = dict(builder.info.features.items())
    imaged = [key for key, feature in features.items() if _is_image(feature)]
    color = [key for key in imaged if key in IMAGES or features[key].shape[-1] == 3]
    image = choose("image of 3 channels", color, IMAGES, builder)
    if known := KNOWN.get(builder.info.name):
        key = choose("mask", [key for key in features if key == known.key], (known.key,), builder)
    else:
        key = choose("mask", [key for key, f in features.items() if key != image and _is_mask(f)], MASKS, builder)
    records = open_records(builder, split, (image, key))
    return Prepared(records, image, known or find_masks(Path(builder.data_dir), key, features[key]))


def open_records(builder: Any, split: str, keys: Iterable[str]) -> Records:
    """Raises InputError that names the splits there are, or a shard that is missing."""
    tfds = import_tfds()
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    splits = list(builder.info.splits)
    result = split if "val" in splits else re.sub(r"\bval\b", "validation", split)
    try:
        source = builder.as_data_source(result, deserialize_method=raw, file_format="array_record")
        shards = [shard.filename for shard in builder.info.splits[result].file_instructions]
    except (ValueError, KeyError) as error:
        raise InputError(
            f"{builder.data_dir} has no split {split!r}, but {', '.join(splits)} and slices such as train[:80%] "
            f"({first_line(error)})"
        ) from None
    for shard in shards:
        if not Path(shard).is_file():
            raise InputError(f"{shard} is missing; copy it there, or prepare the builder anew")
    features = tfds.features.FeaturesDict({key: builder.info.features[key] for key in keys})
    return Records(source, features, f"split {result!r} in {builder.data_dir}")


def find_masks(folder: Path, key: str, feature: Any) -> Masks:
    """Classes with the names that stand beside the shards, or numbered."""
    names, notes = folder / f"{key}.labels.txt", ()
    if names.is_file():
        classes = with_palette(read_class_names(names))
    else:
        count = getattr(feature, "num_classes", None)
        if not count:
            values = values_of(folder, key)
            count, notes = max(values) + 1, gaps(values)
        if not count < IGNORE:
            raise InputError(f"{folder} has {count} classes; masks of 8 bits can hold {IGNORE - 1} and void")
        classes = with_palette(f"class_{id}" for id in range(count))
    return Masks(key, classes, {id: id for id in range(len(classes))}, notes=notes)


def gaps(values: Sequence[int]) -> tuple[str, ...]:
    """A note where most ids up to the largest occur nowhere."""
    if 2 * len(values) > max(values):
        return ()
    some = ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
    return (f"{len(values)} of the values 0 to {max(values)} are in masks: {some}; are they gray levels?",)


@functools.cache
def values_of(folder: Path, key: str) -> tuple[int, ...]:
    """All that any mask of a builder holds, except IGNORE. Raises InputError where they cannot be those of classes."""
    records = open_records(import_tfds().builder_from_directory(str(folder)), "all", (key,))
    result: set[int] = set()
    for index in range(len(records)):
        values = decode_mask(records[index][key], f"the mask of example {index} of {records.place}", in_red=False)
        result |= set(np.unique(values).tolist())
    largest = max(result - {IGNORE}, default=0)
    if not 0 < largest < IGNORE:
        raise InputError(
            f"the masks {key} in {folder} hold values up to {largest}, besides {IGNORE} for void, which are no "
            "class ids; prepare the builder anew with ids in its masks"
        )
    return tuple(sorted(result - {IGNORE}))


def decode_image(data: bytes, place: str) -> UInt8[np.ndarray, "h w 3"]:
    """RGB, turned upright by its EXIF tag."""
    image = read.turn_upright(read.decode(data, place, WITHOUT))
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        raise InputError(f"{place} has {image.mode} pixels; prepare the builder anew with 8 bits a channel")
    return read.as_rgb(image)


def decode_mask(stored: bytes | Shaped[np.ndarray, "h w ..."], place: str, in_red: bool) -> Int64[np.ndarray, "h w"]:
    """The values of a tensor, or of an image of one channel or with indices of a palette; or its red channel."""
    if isinstance(stored, np.ndarray):
        return stored.reshape(stored.shape[:2]).astype(np.int64)
    image = read.decode_mask(stored, place, WITHOUT)
    if in_red and image.mode == "RGB":
        image = image.getchannel("R")
    if image.mode not in ("1", "L", "P", "I", "I;16"):
        raise InputError(f"{place} is a {image.mode} image; prepare the builder anew with class ids in its masks")
    return read.stored_values(image, stored).astype(np.int64)


def _is_image(feature: Any) -> bool:
    return isinstance(feature, import_tfds().features.Image)


def _is_mask(feature: Any) -> bool:
    """Whether it holds one integer for every pixel."""
    if not _is_image(feature) and not isinstance(feature, import_tfds().features.Tensor):
        return False
    return (len(feature.shape) == 2 or feature.shape[2:] == (1,)) and np.dtype(feature.np_dtype).kind in "bui"
