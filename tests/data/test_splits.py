"""Which images are in which split, and which mask belongs to each."""

import shutil

import pytest
from PIL import Image

from deeplab_jax.data.dataset import Example
from deeplab_jax.data.formats import open_dataset
from deeplab_jax.data.splits import draw_split
from deeplab_jax.errors import InputError


@pytest.fixture
def unsplit(tmp_path):
    """Twenty images, and no split."""
    (tmp_path / "classes.txt").write_text("a\nb\n")
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for i in range(20):
            Image.new("RGB" if kind == "images" else "L", (4, 4)).save(tmp_path / kind / f"{i}.png")
    return tmp_path


def drawn(root):
    return {s: {e.image.name for e in open_dataset(root, "folder", s).examples} for s in ("train", "val", "test")}


def test_folder_without_splits_is_split_by_names(unsplit):
    before = drawn(unsplit)
    assert sum(len(names) for names in before.values()) == len(set().union(*before.values())) == 20
    for number in range(20, 60):
        for kind in ("images", "masks"):
            shutil.copy(unsplit / kind / "0.png", unsplit / kind / f"{number}.png")
        after = drawn(unsplit)
        assert all(before[split] <= after[split] for split in before)
        before = after
    for number in range(3, 60):
        (unsplit / "images" / f"{number}.png").unlink()
    assert [len(names) for names in drawn(unsplit).values()] == [1, 1, 1]
    (unsplit / "images" / "0.png").unlink()
    with pytest.raises(InputError, match="holds 2 images; a split into train, val and test needs at least 3"):
        open_dataset(unsplit, "folder", "train")


def test_names_are_drawn_evenly_and_no_part_is_empty(tmp_path):
    examples = [Example(tmp_path / f"{number}.jpg", tmp_path) for number in range(4000)]
    counts = [len(draw_split(examples, tmp_path, split)) for split in ("train", "val", "test")]
    assert sum(counts) == 4000
    assert all(abs(count - part) < 60 for count, part in zip(counts, (3200, 400, 400), strict=True))
    for first in range(0, 400, 4):
        parts = [draw_split(examples[first : first + 4], tmp_path, split) for split in ("train", "val", "test")]
        assert all(parts)
        assert sum(map(len, parts)) == 4
    with pytest.raises(InputError, match=r"split 'dev' is not known; choose one of train, val, test"):
        draw_split(examples, tmp_path, "dev")


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_lists_leave_nothing_to_a_drawing(unsplit, name):
    """Else images of one list would be drawn for the split that has none."""
    (unsplit / "train.txt").write_text("".join(f"{number}\n" for number in range(16)))
    with pytest.raises(InputError, match=r"/val.txt is missing; there is train.txt"):
        open_dataset(unsplit, "folder", "val")
    (unsplit / f"{name}.txt").write_bytes(b"\xef\xbb\xbf16\r\n\r\nimages/17.png\r\n18.png\r\n")
    chosen = open_dataset(unsplit, "folder", "val").examples
    assert [example.image.name for example in chosen] == ["16.png", "17.png", "18.png"]
    with pytest.raises(InputError, match=rf"/test.txt is missing; there is train.txt, {name}.txt"):
        open_dataset(unsplit, "folder", "test")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"val.txt names no images; write one name a line"),
        (b"0\n1\n0.png\n", r"val.txt names '0' 2 times; list every image once"),
        (b"images/0.png masks/0.png\n", r"val.txt: a line must name one image, not 'images/0.png masks/0.png'"),
        (b"m\xe4\n", r"val.txt is not a readable text file \(.*\); save it as UTF-8"),
    ],
)
def test_lists_that_cannot_be(unsplit, data, message):
    (unsplit / "val.txt").write_bytes(data)
    with pytest.raises(InputError, match=message):
        open_dataset(unsplit, "folder", "val")


def test_names_of_masks(unsplit):
    """A suffix may be large, what macOS leaves beside files is none, and every image has its own mask."""
    (unsplit / "masks/0.png").rename(unsplit / "masks/0.PNG")
    (unsplit / "masks/._1.png").write_text("a resource fork")
    (unsplit / "masks/x.PNG").write_text("a mask")
    for split in ("train", "val", "test"):
        assert [path.name for path in open_dataset(unsplit, "folder", split).unpaired] == ["x.PNG"]
    (unsplit / "train.txt").write_text("0\n")
    assert open_dataset(unsplit, "folder", "train")[0].mask.shape == (4, 4)
    (unsplit / "masks/0.PNG").rename(unsplit / "masks/0.tif")
    with pytest.raises(InputError, match=r"/masks/0.png is missing, but there is 0.tif; save masks as PNG$"):
        open_dataset(unsplit, "folder", "train")
    Image.new("RGB", (4, 4)).save(unsplit / "images/3.jpg")
    with pytest.raises(InputError, match=r"/3.jpg and 3.png would have the same mask, 3.png; rename one of them"):
        open_dataset(unsplit, "folder", "train")
