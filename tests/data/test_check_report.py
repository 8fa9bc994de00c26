"""`deeplab data check` on broken copies of a good data set, and what it counts."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from deeplab_jax.classes import default_palette
from deeplab_jax.config import IGNORE
from deeplab_jax.data.formats import open_dataset
from deeplab_jax.data.statistics import balancing_weights, count
from helpers.data_check import (
    all_void,
    as_image,
    binary,
    change_masks,
    colors,
    gray_levels_of_colors,
    in_palette,
    jpeg_masks,
    leaked,
    mostly_background,
    mostly_void,
    name_classes,
    nearly_binary,
    no_mask_usable,
    one_based,
    one_based_without_the_last,
    one_class_unnamed,
    other_size,
    repeated,
    repeated_with_another_mask,
    run,
    sentences,
    smoothed,
    turned,
    two_palettes,
)


def test_counts_are_those_of_the_masks(shapes_folder):
    report = run(shapes_folder)
    assert report.all_faults == []
    for checked, images in zip(report.splits, (12, 5), strict=True):
        masks = [np.array(Image.open(path)) for path in (shapes_folder / "masks" / checked.split).iterdir()]
        actual = checked.statistics
        assert (actual.images, actual.sizes) == (images, {(48, 48): images})
        assert actual.void == sum((mask == IGNORE).sum() for mask in masks)
        for id in range(5):
            having = [mask for mask in masks if (mask == id).any()]
            assert actual.pixels[id] == sum((mask == id).sum() for mask in masks)
            assert actual.occurrences[id] == len(having)
            assert actual.around[id] == sum((mask != IGNORE).sum() for mask in having)


def test_balancing_weights_are_median_over_frequency(shapes_folder):
    actual = count(open_dataset(shapes_folder, "folder", "train"), threads=2)
    frequency = actual.pixels / actual.around
    np.testing.assert_allclose(balancing_weights(actual), np.median(frequency) / frequency)
    actual.pixels[2] = 0
    assert balancing_weights(actual)[2] == 0


FAULTS = {
    "ids from 1": (one_based, r"background is nowhere and one value is too large: ids seem to begin with 1, not 0"),
    "ids from 1, but not the last": (
        one_based_without_the_last,
        r"^background is nowhere, but others are: ids seem to begin with 1, not 0",
    ),
    "0 for other": (one_class_unnamed, r"one value more than classes: name a class for 4, or, where 0 is no class"),
    "0 for other everywhere": (no_mask_usable, r"one value more than classes: name a class for 4"),
    "0 and 255": (binary, r"train: masks hold 0, 255 and hardly anything else, and 255 is void"),
    "0 and 255 but for a pixel": (nearly_binary, r"train: masks hold 0, 255 and hardly anything else"),
    "one class": (binary, r"train: background is all that is labeled, so nothing can be learned"),
    "void alone": (all_void, r"train: every pixel is void, so nothing can be learned"),
    "two palettes": (
        two_palettes,
        r"value 0 is \(0, 0, 0\) in the palette of .*train/0.png, but \(128, 0, 0\) in .*train/7.png, and other values",
    ),
    "EXIF": (turned, r"val: an EXIF tag turns 2 images upright, such as .*images/val/3.png, but masks are not"),
    "an image thrice": (repeated, r"train: 1 images are there more than once: .*train/3.png and .*train/again.png"),
    "an image with two masks": (repeated_with_another_mask, r"more than once, 1 of them with different masks: "),
    "colors as gray levels": (gray_levels_of_colors, r"so many values look like colors as gray levels"),
    "smoothed": (smoothed, r"so many values look like .* masks that were smoothed"),
    "colors": (colors, r"masks/train/0.png is a RGB image; .*its colors must be in a color table"),
    "another size": (other_size, r"masks/val/1.png is 20x48 but its image .*images/val/1.png is 48x48"),
    "missing mask": (lambda root: (root / "masks/val/2.png").unlink(), r"images/val/2.png has no mask"),
    "missing image": (lambda root: (root / "images/val/2.png").unlink(), r"masks/val/2.png is a mask without an image"),
    "damaged image": (lambda root: (root / "images/val/2.png").write_bytes(b"no"), r"val/2.png cannot be read"),
    "JPEG masks": (
        jpeg_masks,
        r"images/val/0.png has no mask: .*0.png is missing, but there is 0.jpg; save masks as PNG",
    ),
    "no validation split": (
        lambda root: shutil.rmtree(root / "images/val"),
        r"no val split: .*images/val does not exist",
    ),
    "one image in two splits": (leaked, r"1 images are in train and in val, such as .*train/3.png"),
    "mostly void": (mostly_void, r"8\d % of all pixels are void"),
    "mostly background": (
        mostly_background,
        r"99.\d % of labeled pixels are background; see the suggested class weights",
    ),
    "unused class": (
        lambda root: name_classes(root, "background", "disc", "bar", "polygon", "ring", "never"),
        r"never seen: never",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_named(broken, fault):
    spoil, message = FAULTS[fault]
    assert not any(re.search(message, line) for line in sentences(run(broken)))
    spoil(broken)
    stated = sentences(run(broken))
    assert any(re.search(message, line) for line in stated), stated


def two_colors(mode, palette=None):
    """Shapes and background in a mode of Pillow's that shows two colors, where ids 0 and 1 are not what they hold."""

    def change(ids):
        image = as_image(np.where(np.isin(ids, (0, IGNORE)), 0, 255))
        if palette:
            image = Image.fromarray(np.array(image), "P")
            image.putpalette([channel for color in palette for channel in color])
        return image if palette else image.convert(mode)

    return change


WHITE_ON_RED = [(200, 0, 0), *[(0, 0, 0)] * 254, (250, 250, 250)]
TWO_COLORS = {
    "gray": (two_colors("L"), "`background 0 0 0` and `cell 255 255 255`"),
    "RGB": (two_colors("RGB"), "`background 0 0 0` and `cell 255 255 255`"),
    "RGBA": (two_colors("RGBA"), "`background 0 0 0` and `cell 255 255 255`"),
    "a palette": (two_colors("P", default_palette(256)), "`background 0 0 0` and `cell 224 224 192`"),
    "its colors": (two_colors("P", WHITE_ON_RED), "`background 200 0 0` and `cell 250 250 250`"),
    "another value": (lambda ids: as_image(ids % 2 * 200), "`background 0 0 0` and `cell 200 200 200`"),
}


@pytest.mark.parametrize("names", [("background", "cell"), ("cell",), ("cell", "background")])
@pytest.mark.parametrize("case", TWO_COLORS)
def test_two_colors_become_two_classes_by_what_the_hint_says(broken, case, names):
    change, lines = TWO_COLORS[case]
    foreground = [np.array(Image.open(path)) for path in sorted((broken / "masks/train").iterdir())]
    foreground = [np.isin(ids, (1, 3, IGNORE) if case == "another value" else (1, 2, 3, 4)) for ids in foreground]
    change_masks(broken, change)
    name_classes(broken, *names)
    (hint,) = [line for line in run(broken).warnings if "just two colors" in line]
    assert hint.endswith(f"; where they are background and cell, let the lines of classes.txt be {lines}")
    name_classes(broken, *re.findall("`(.*?)`", hint))
    assert sentences(run(broken)) == []
    dataset = open_dataset(broken, "folder", "train")
    assert dataset.classes.names == ("background", "cell")
    for sample, path, expected in zip(dataset, sorted((broken / "masks/train").iterdir()), foreground, strict=True):
        np.testing.assert_array_equal(sample.mask, expected, str(path))


def test_ids_of_two_classes_need_no_hint(broken):
    for change in (lambda ids: as_image(ids % 2), lambda ids: as_image(ids % 2 * 255).convert("1")):
        change_masks(broken, change)
        name_classes(broken, "background", "cell")
        assert sentences(run(broken)) == []
    (broken / "images/train/3.png").write_bytes(b"no")
    assert len(sentences(run(broken))) == 1


def stray_value(root):
    change_masks(root, lambda ids: as_image(np.where(np.arange(48) == 0, 200, ids)))


def background_in_train_alone(root):
    for path in (root / "masks/val").iterdir():
        as_image(np.maximum(np.array(Image.open(path)), 1)).save(path)


NO_HINTS = {
    "one class is not named": (one_class_unnamed, "begin with 1"),
    "and every mask holds it": (no_mask_usable, "begin with 1"),
    "one split lacks the first class": (background_in_train_alone, "begin with 1"),
    "a stray value": (stray_value, "so many values"),
    "one palette": (lambda root: change_masks(root, in_palette), "palette"),
}


@pytest.mark.parametrize("case", NO_HINTS)
def test_hints_are_not_given_wrongly(broken, case):
    spoil, message = NO_HINTS[case]
    spoil(broken)
    assert not [line for line in sentences(run(broken)) if message in line]
