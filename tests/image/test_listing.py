"""Which files are images, and what is said of those that are none."""

import struct

import pytest

from deeplab_jax.errors import InputError
from deeplab_jax.image.listing import find_images
from deeplab_jax.image.read import list_images, read_image
from helpers.image_files import save


def test_what_cannot_be_read_says_the_way_out(tmp_path):
    for name, reason in [("a.heic", "is of a kind that Pillow here cannot read"), ("a.NEF", "is a camera's raw file")]:
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0")
        with pytest.raises(InputError, match=rf"{name} {reason}.*as PNG or JPEG$"):
            read_image(tmp_path / name)
    (tmp_path / "none" / "c").mkdir(parents=True)
    for name in ("a.txt", "b.txt"):
        (tmp_path / "none" / name).touch()
    with pytest.raises(InputError, match=r"holds no images .*; 2 other files left: a.txt, b.txt; 1 folder left: c$"):
        find_images([tmp_path / "none"])
    for name in range(25):
        (tmp_path / f"{name:02}.txt").touch()
    assert find_images([tmp_path]).left()[0].endswith("18.txt, 19.txt, and 5 more")


def test_data_sets_read_the_same_kinds(tmp_path):
    folder = save(tmp_path / "images", "a.gif", "b.jfif", "c.avif", "d.jp2")
    for name in ("e.mp4", "f.txt", "g.npy", "h.mpg", "i.h5", ".j.png"):
        (folder / name).write_bytes(struct.pack(">I", 24) + b"ftypisom" + b"\0" * 64)
    assert [path.name for path in list_images(folder)] == ["a.gif", "b.jfif", "c.avif", "d.jp2"]
