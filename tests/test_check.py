"""`deeplab data check` on broken copies of a good data set, and what it counts."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from deeplab_jax import cli
from deeplab_jax.config import IGNORE
from deeplab_jax.data.check import check
from deeplab_jax.data.formats import open_dataset
from deeplab_jax.data.statistics import balancing_weights, count


def run(root, format="folder"):
    return check(root, format, 2, lambda split, done, total: None)


def test_counts_are_those_of_the_masks(shapes_folder):
    report = run(shapes_folder)
    assert report.all_faults == []
    for checked, images in zip(report.splits, (12, 5), strict=True):
        masks = [np.array(Image.open(path)) for path in (shapes_folder / "masks" / checked.split).iterdir()]
        found = checked.statistics
        assert (found.images, found.sizes) == (images, {(48, 48): images})
        assert found.void == sum((mask == IGNORE).sum() for mask in masks)
        for id in range(5):
            having = [mask for mask in masks if (mask == id).any()]
            assert found.pixels[id] == sum((mask == id).sum() for mask in masks)
            assert found.occurrences[id] == len(having)
            assert found.around[id] == sum((mask != IGNORE).sum() for mask in having)


def test_balancing_weights_are_median_over_frequency(shapes_folder):
    found = count(open_dataset(shapes_folder, "folder", "train"), threads=2)
    frequency = found.pixels / found.around
    np.testing.assert_allclose(balancing_weights(found), np.median(frequency) / frequency)
    found.pixels[2] = 0
    assert balancing_weights(found)[2] == 0


@pytest.fixture
def copy(shapes_folder, tmp_path):
    return shutil.copytree(shapes_folder, tmp_path / "copy")


def change_masks(root, change):
    for path in (root / "masks").rglob("*.png"):
        change(np.array(Image.open(path))).save(path)


def as_picture(values):
    return Image.fromarray(values.astype(np.uint8))


def one_based(root):
    change_masks(root, lambda ids: as_picture(np.where(ids == IGNORE, ids, ids + 1)))


def binary(root):
    change_masks(root, lambda ids: as_picture(np.where(ids > 0, 255, 0)))


def grey_levels_of_colours(root):
    colours = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)
    change_masks(root, lambda ids: Image.fromarray(colours[ids]).convert("L"))


def smoothed(root):
    change_masks(root, lambda ids: as_picture(20 * ids).resize((24, 24), Image.Resampling.BILINEAR).resize((48, 48)))


def colours(root):
    change_masks(root, lambda ids: as_picture(ids).convert("RGB"))


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
    change_masks(root, lambda ids: as_picture(np.where(np.arange(48) < 40, IGNORE, ids)))


def mostly_background(root):
    change_masks(root, lambda ids: as_picture(np.where(np.arange(48) < 47, 0, ids)))


FAULTS = {
    "ids from 1": (one_based, r"background is nowhere and one value is too large: ids seem to begin with 1, not 0"),
    "0 and 255": (binary, r"masks hold 0 and 255 alone, and 255 is void"),
    "colours as grey levels": (grey_levels_of_colours, r"so many values look like colours as grey levels"),
    "smoothed": (smoothed, r"so many values look like .* masks that were smoothed"),
    "colours": (colours, r"masks/train/0.png is a RGB picture; .*its colours must be in a colour table"),
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
    "one picture in two splits": (leaked, r"1 pictures are in train and in val, such as .*train/3.png"),
    "mostly void": (mostly_void, r"8\d % of all pixels are void"),
    "mostly background": (
        mostly_background,
        r"99.\d % of labelled pixels are background; see the suggested class weights",
    ),
    "unused class": (
        lambda root: (root / "classes.txt").write_text("background\ndisc\nbar\npolygon\nring\nnever"),
        r"never seen: never",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_named(copy, fault):
    spoil, message = FAULTS[fault]
    assert not any(re.search(message, line) for line in [*run(copy).all_faults, *run(copy).warnings])
    spoil(copy)
    report = run(copy)
    said = [*report.all_faults, *report.warnings]
    assert any(re.search(message, line) for line in said), said
    assert all("\n" not in line for line in said)


def test_the_command_prints_draws_and_fails_on_faults(copy, tmp_path, monkeypatch, capsys):
    picture = tmp_path / "check.png"
    command = ["deeplab", "data", "check", "--data.root", str(copy), "--picture", str(picture)]
    monkeypatch.setattr("sys.argv", command)
    assert cli.main() == 0
    said = capsys.readouterr().out
    assert "train: 12 images of 48x48 (12)" in said
    assert "suggested weight" in said
    assert np.array(Image.open(picture)).shape[1] > 1000

    (copy / "masks/val/2.png").unlink()
    assert cli.main() == 1
    errors = capsys.readouterr().err
    assert "images/val/2.png has no mask" in errors
    assert "error: 1 faults in" in errors
    monkeypatch.setattr("sys.argv", ["deeplab", "data", "check", "--data.root", str(tmp_path / "nowhere")])
    assert cli.main() == 1
    assert "does not exist or is no folder" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["deeplab", "data"])
    assert cli.main() == 2
