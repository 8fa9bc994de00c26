"""Prepared builders of TensorFlow Datasets, written with TFDS's own writer, which needs no TensorFlow."""

import io

import numpy as np
from PIL import Image

from deeplab_jax.classes import default_palette

SPLITS = {"train": 3, "validation": 2}


def file_of(pixels, mode=None, tag=1) -> io.BytesIO:
    """A PNG, as a builder hands it to TFDS, with an orientation tag."""
    image, file, exif = Image.fromarray(pixels), io.BytesIO(), Image.Exif()
    exif[0x0112] = tag
    if mode == "P":
        image = Image.fromarray(pixels, "P")
        image.putpalette([channel for color in default_palette(256) for channel in color])
    image.save(file, "png", exif=exif)
    file.seek(0)
    return file


def prepare(tfds, root, features, examples, name="toy", version="1.0.0", file_format="array_record"):
    """Prepares ROOT/NAME/VERSION, two examples a shard, of the examples by split; returns its folder."""
    folder = root / name / version
    folder.mkdir(parents=True)
    where = tfds.core.dataset_info.DatasetIdentity(name.partition("/")[0], tfds.core.Version(version), str(folder), "")
    if "/" in name:
        where.config_name = name.partition("/")[2]
    info = tfds.core.DatasetInfo(builder=where, features=tfds.features.FeaturesDict(features))
    writer = tfds.core.SequentialWriter(info, 2, file_format=file_format)
    writer.initialize_splits(list(examples))
    writer.add_examples(examples)
    writer.close_all()
    return folder


def draw(values, seed=0, height=6):
    """An image and mask values of every split, the same for the same seed."""
    rng = np.random.default_rng(seed)
    return {
        split: [
            (rng.integers(0, 256, (height, 5 + i, 3), np.uint8), rng.choice(values, (height, 5 + i)).astype(np.uint8))
            for i in range(count)
        ]
        for split, count in SPLITS.items()
    }


def prepare_images(tfds, root, drawn, mask=None, keys=("image", "segmentation_mask"), **where):
    mask = mask or tfds.features.Image(shape=(None, None, 1))
    examples = {
        split: [{keys[0]: file_of(image), keys[1]: file_of(values)} for image, values in pairs]
        for split, pairs in drawn.items()
    }
    return prepare(tfds, root, {keys[0]: tfds.features.Image(), keys[1]: mask}, examples, **where)
