"""The check of a data set, and ways to spoil one."""

import shutil

import numpy as np
from PIL import Image

from deeplab_jax.classes import default_palette
from deeplab_jax.config import IGNORE
from deeplab_jax.data.check.report import check


def no_progress(split, done, total):
    pass


def run(root, format="folder", **splits):
    return check(root, format, 2, no_progress, **splits)


def sentences(report):
    stated = [*report.all_faults, *report.warnings]
    assert all("\n" not in line for line in stated)
    return stated


def change_masks(root, change):
    for path in (root / "masks").rglob("*.png"):
        change(np.array(Image.open(path))).save(path)


def as_image(values):
    return Image.fromarray(values.astype(np.uint8))


def name_classes(root, *names):
    (root / "classes.txt").write_text("\n".join(names))


def one_based(root):
    change_masks(root, lambda ids: as_image(np.where(ids == IGNORE, ids, ids + 1)))


def one_based_without_the_last(root):
    one_based(root)
    name_classes(root, "background", "disc", "bar", "polygon", "ring", "never")


def one_class_unnamed(root):
    name_classes(root, "background", "disc", "bar", "polygon")


def no_mask_usable(root):
    one_class_unnamed(root)
    change_masks(root, lambda ids: as_image(np.concatenate([ids[1:], np.full_like(ids[:1], 4)])))


def binary(root):
    change_masks(root, lambda ids: as_image(np.where(ids > 0, 255, 0)))


def nearly_binary(root):
    binary(root)
    for path in (root / "masks/train/0.png", root / "masks/val/0.png"):
        ids = np.array(Image.open(path))
        ids[0, 0] = 1
        as_image(ids).save(path)


def all_void(root):
    change_masks(root, lambda ids: as_image(np.full_like(ids, IGNORE)))


def in_palette(ids, order=(0, 1, 2, 3, 4)):
    """The colors of the same classes, under ids in another order."""
    palette = np.zeros((256, 3), np.uint8)
    palette[list(order)] = default_palette(len(order))
    image = Image.fromarray(np.array([*order, *range(len(order), 256)], np.uint8)[ids], "P")
    image.putpalette(palette.ravel().tolist())
    return image


def two_palettes(root):
    change_masks(root, in_palette)
    path = root / "masks/train/7.png"
    in_palette(np.array(Image.open(path)), (1, 0, 2, 3, 4)).save(path)


def turned(root):
    tag = Image.Exif()
    tag[0x0112] = 3
    with Image.open(root / "images/val/3.png") as image:
        image.save(root / "images/val/3.png", exif=tag)
    with Image.open(root / "images/val/4.png") as image:
        image.save(root / "images/val/4.jpg", exif=tag)
    (root / "images/val/4.png").unlink()


def repeated(root):
    for name in ("again", "once more"):
        shutil.copy(root / "images/train/3.png", root / f"images/train/{name}.png")
        shutil.copy(root / "masks/train/3.png", root / f"masks/train/{name}.png")


def repeated_with_another_mask(root):
    shutil.copy(root / "images/train/3.png", root / "images/train/again.png")
    shutil.copy(root / "masks/train/4.png", root / "masks/train/again.png")


def gray_levels_of_colors(root):
    colors = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)
    change_masks(root, lambda ids: Image.fromarray(colors[ids]).convert("L"))


def smoothed(root):
    change_masks(root, lambda ids: as_image(20 * ids).resize((24, 24), Image.Resampling.BILINEAR).resize((48, 48)))


def colors(root):
    change_masks(root, lambda ids: as_image(ids).convert("RGB"))


def other_size(root):
    Image.open(root / "masks/val/1.png").resize((20, 48), 0).save(root / "masks/val/1.png")


def jpeg_masks(root):
    for path in (root / "masks/val").iterdir():
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()


def leaked(root):
    for kind in ("images", "masks"):
        shutil.copy(root / kind / "train/3.png", root / kind / "val/again.png")


def mostly_void(root):
    change_masks(root, lambda ids: as_image(np.where(np.arange(48) < 40, IGNORE, ids)))


def mostly_background(root):
    change_masks(root, lambda ids: as_image(np.where(np.arange(48) < 47, 0, ids)))
