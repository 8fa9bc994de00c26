"""Files of images and masks: which way up they are, how their values are stored, and what is refused."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from deeplab_jax.classes import Classes
from deeplab_jax.config import IGNORE
from deeplab_jax.data.annotations import check_size
from deeplab_jax.data.dataset import Example, Files
from deeplab_jax.data.formats import open_dataset
from deeplab_jax.data.formats import tfds as reader
from deeplab_jax.data.masks import ColorMasks, IdMasks
from deeplab_jax.errors import InputError
from deeplab_jax.image.read import ORIENTATION, read_colors, read_ids, read_image

IDS = np.array([[0, 1, 2, 3], [3, 2, 1, 0], [1, 1, 0, 2]], np.uint8)


def with_tag(tag):
    exif = Image.Exif()
    exif[ORIENTATION] = tag
    return exif


def save_image(path, tag, pixels=None):
    """(3, 4, 3) random pixels, unless told, with an orientation tag."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8) if pixels is None else pixels
    Image.fromarray(pixels).save(path, exif=with_tag(tag))
    return path


@pytest.mark.parametrize("tag", range(1, 10))
def test_images_are_turned_upright(tmp_path, tag):
    path = save_image(tmp_path / "a.png", tag)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read_image(path), expected)
    np.testing.assert_array_equal(reader.decode_image(path.read_bytes(), "here"), expected)


def test_masks_that_do_not_fit_a_turned_image(tmp_path):
    image, mask = save_image(tmp_path / "a.png", 6), tmp_path / "mask.png"
    Image.fromarray(IDS).save(mask)
    dataset = Files(Classes((), ()), [Example(image, mask)], IdMasks(4))
    message = r"mask.png is 4x3 but its image .*a.png is 3x4; its orientation tag 6 turns the image; save it without"
    with pytest.raises(InputError, match=message):
        dataset[0]
    with pytest.raises(InputError, match=r"says that a.png is 4x3, but .*a.png is 3x4; its orientation tag 6 turns"):
        check_size((3, 4), (4, 3), tmp_path / "a.json", image)
    with pytest.raises(InputError, match=r"a.png is 3x4; annotate the image as it is"):
        check_size((3, 5), (4, 3), tmp_path / "a.json", image)
    Image.fromarray(IDS.T).save(mask)
    np.testing.assert_array_equal(dataset[0].mask, IDS.T)


def test_masks_are_never_turned(tmp_path):
    path = save_image(tmp_path / "a.png", 1, IDS)
    np.testing.assert_array_equal(read_ids(path), IDS)
    save_image(path, 3, IDS)
    for read in (read_ids, read_colors, lambda path: reader.decode_mask(path.read_bytes(), str(path), in_red=False)):
        with pytest.raises(InputError, match=r"a.png has the orientation tag 3, but masks are never turned; save it"):
            read(path)


@pytest.mark.parametrize(("format", "name"), [("JPEG", "JPEG"), ("WEBP", "WEBP")])
def test_masks_whose_values_may_have_changed(tmp_path, format, name):
    path = tmp_path / "a.png"
    Image.fromarray(IDS).save(path, format)
    for read in (read_ids, read_colors, lambda path: reader.decode_mask(path.read_bytes(), str(path), in_red=False)):
        with pytest.raises(InputError, match=rf"a.png holds {name} data, which may change values; make it anew as PNG"):
            read(path)


def gray_png(values, bits):
    """A PNG of so many bits a pixel, which Pillow does not write."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = values.shape
    planes = (values[..., None] >> np.arange(bits)[::-1]) & 1
    rows = np.packbits(planes.reshape(height, -1), axis=1)
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_ids_of_few_bits(tmp_path, bits):
    values = np.random.default_rng(0).integers(0, 2**bits, (5, 7)).astype(np.uint8)
    (tmp_path / "a.png").write_bytes(gray_png(values, bits))
    np.testing.assert_array_equal(read_ids(tmp_path / "a.png"), values)
    np.testing.assert_array_equal(reader.decode_mask(gray_png(values, bits), "here", in_red=False), values)
    assert read_ids(tmp_path / "a.png").dtype == np.uint8


TABLE = {(0, 0, 255): 0, (255, 0, 0): 1, (0, 0, 0): IGNORE, (255, 255, 255): 2}


def test_with_a_table_every_mask_is_read_as_colors(tmp_path):
    """Whatever the order of a palette; gray levels are colors too."""
    colors = np.array([*TABLE], np.uint8)[IDS]
    expected = np.array([*TABLE.values()], np.uint8)[IDS]
    image = Image.fromarray(colors)
    palette = image.convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    example = Example(tmp_path / "a.png", tmp_path / "a.png")
    for other in (image, image.convert("RGBA"), palette):
        other.save(example.source)
        np.testing.assert_array_equal(ColorMasks(TABLE)(example, (3, 4)), expected)
    assert (np.asarray(palette) != expected).any()
    for other in (Image.fromarray(IDS > 1), Image.fromarray(np.where(IDS > 1, 255, 0).astype(np.uint8))):
        other.save(example.source)
        np.testing.assert_array_equal(ColorMasks(TABLE)(example, (3, 4)), np.where(IDS > 1, 2, IGNORE))

    Image.fromarray(IDS).save(example.source)
    message = r"the color \(1, 1, 1\), which no class has; add it to the table; where masks hold ids, leave the"
    with pytest.raises(InputError, match=message):
        ColorMasks(TABLE)(example, (3, 4))
    Image.fromarray(IDS.astype(np.uint16)).save(example.source)
    with pytest.raises(InputError, match=r"a.png has I;16 pixels, which are no colors; save it with 8 bits a channel"):
        ColorMasks(TABLE)(example, (3, 4))


def test_void_may_be_written_large(broken):
    table = "Void 0 0 0\nVOID 255 255 255\n" + "".join(f"{name} {name} {name} {name}\n" for name in range(1, 5))
    (broken / "classes.txt").write_text(table)
    dataset = open_dataset(broken, "folder", "val")
    assert dataset.classes.names == ("1", "2", "3", "4")
    raw = np.asarray(Image.open(broken / "masks/val/0.png"))
    np.testing.assert_array_equal(dataset[0].mask, np.where(raw == IGNORE, IGNORE, raw - 1))


def test_images_that_are_too_large(tmp_path, monkeypatch):
    path = save_image(tmp_path / "a.png", 1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    with pytest.raises(InputError, match=r"a.png has more than 10 pixels, the most that is read; cut it up"):
        read_image(path)


def test_large_images_are_read_without_a_word_of_pillow(tmp_path):
    path = save_image(tmp_path / "a.png", 1)
    code = (
        "import sys; from pathlib import Path; from PIL import Image; import deeplab_jax.image.read as images; "
        "Image.MAX_IMAGE_PIXELS = 8; print(images.read_image(Path(sys.argv[1])).shape)"
    )
    actual = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert (actual.stdout, actual.stderr) == ("(3, 4, 3)\n", "")


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", gray_png(IDS, 2)[:-30]])
def test_files_that_are_no_images(tmp_path, data):
    (tmp_path / "a.png").write_bytes(data)
    for read in (read_image, read_ids, read_colors):
        with pytest.raises(InputError, match=r"a.png cannot be read as an image \(.+\); replace or remove it"):
            read(tmp_path / "a.png")
        with pytest.raises(InputError, match=r"b.png does not exist"):
            read(tmp_path / "b.png")


def test_faults_name_files_and_nothing_of_this_program(tmp_path):
    (tmp_path / "a.png").write_text("text")
    for read in (read_image, read_ids):
        with pytest.raises(InputError) as error:
            read(tmp_path / "a.png")
        reason = "cannot be read as an image (it is of no known format); replace or remove it"
        assert str(error.value) == f"{tmp_path / 'a.png'} {reason}"


def test_damaged_tags_do_no_harm(tmp_path):
    """A text becomes a number to Pillow, which then cannot write the tags again."""
    exif, file = with_tag(6), io.BytesIO()
    exif[0x010E] = "hello"
    Image.new("RGB", (4, 3)).save(file, "JPEG", exif=exif)
    (tmp_path / "a.jpg").write_bytes(file.getvalue().replace(b"\x01\x0e\x00\x02", b"\x01\x00\x00\x02"))
    assert read_image(tmp_path / "a.jpg").shape == (4, 3, 3)
