"""`deeplab predict`: nothing is passed over, nothing written by halves, and several at a time change nothing."""

import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from deeplab_jax import AutoModel
from deeplab_jax.classes import Classes
from deeplab_jax.cli import commands
from deeplab_jax.errors import InputError
from deeplab_jax.image.draw import overlay_with_legend
from deeplab_jax.image.listing import find_images
from deeplab_jax.image.read import read_image
from deeplab_jax.inference import predict as module
from deeplab_jax.inference.auto_model import SegmentationModel
from deeplab_jax.inference.predict import predict
from deeplab_jax.package.folder import read_package
from helpers.fixtures import random_images
from helpers.image_files import save


@pytest.fixture
def model(tiny_package):
    """Its classes are the thirds of brightness, so that every image has a map of its own; nothing is compiled."""

    def backend(images):
        gray = images.mean(1, keepdims=True)
        levels = np.array([-9, -1, 0, 1, -9], np.float32).reshape(1, 5, 1, 1)
        return -((gray - levels) ** 2)

    return SegmentationModel(read_package(tiny_package), backend)


def mask_of(path):
    with Image.open(path) as mask:
        return np.asarray(mask)


def test_masks_and_overlays_are_those_of_the_model(package, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i, image in enumerate(random_images(*[(30, 40)] * 20)):
        Image.fromarray(image).save(folder / f"{i:02}.png")
    (folder / "07b.png").write_text("no image")
    faults, model = {}, AutoModel.from_pretrained(package)
    report = lambda path, message: faults.update({path.name: message})  # noqa: E731
    assert predict(model, find_images([folder]).images, tmp_path / "out", 0.0, report) == 1
    assert [name for name, error in faults.items() if error] == ["07b.png"]
    assert [*faults] == sorted(path.name for path in folder.iterdir())
    assert len(list((tmp_path / "out").iterdir())) == 40
    image = read_image(folder / "03.png")
    ids = model(image, confidence=0.0, input_color_format="rgb")[0].segmentation_map
    np.testing.assert_array_equal(mask_of(tmp_path / "out/03_mask.png"), ids)
    drawn = overlay_with_legend(image, ids.astype(np.uint8), Classes(tuple(model.class_names), model.palette))[
        ..., ::-1
    ]
    with Image.open(tmp_path / "out/03_overlay.jpg") as shown:
        assert np.abs(np.asarray(shown).astype(int) - drawn).mean() < 3


@pytest.fixture
def deeplab(monkeypatch, capsys, model, tiny_package):
    """Runs `deeplab predict PACKAGE` with that model in this process; returns exit code, output and errors."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["deeplab", "predict", str(tiny_package), *map(str, words)])
        monkeypatch.setattr(AutoModel, "from_pretrained", lambda *_, **__: model)
        try:
            code = commands.main()
        except SystemExit as leave:
            code = leave.code
        return code, *capsys.readouterr()

    return run


def test_the_command_tells_what_became_of_every_file(deeplab, tmp_path):
    folder = save(tmp_path / "images", "a.jpg", "a.png", "A.bmp", "b.png")
    first, second = (Image.new("RGB", (4, 4), color) for color in ("red", "blue"))
    first.save(folder / "c.gif", save_all=True, append_images=[second])
    (folder / "notes.txt").write_text("x")
    code, output, errors = deeplab(folder, "--out", tmp_path / "out")
    lines = [line for line in output.splitlines() if line]
    assert (code, errors) == (0, "")
    assert lines == [
        f"{folder / 'a.jpg'} was predicted as a_2, since another image is called a",
        f"{folder / 'a.png'} was predicted as a_3, since another image is called a",
        f"{folder / 'c.gif'} holds several frames, of which the first was predicted",
        f"5 of 5 images predicted into {tmp_path / 'out'}",
        "1 other file left: notes.txt",
    ]
    written = {path.name for path in (tmp_path / "out").iterdir()}
    names = ("A", "a_2", "a_3", "b", "c")
    assert written == {f"{name}_{kind}" for name in names for kind in ("overlay.jpg", "mask.png")}


def test_a_named_file_that_is_no_image_is_an_error(deeplab, tmp_path):
    folder = save(tmp_path / "images", "a.jpg")
    (folder / "clip.mp4").write_bytes(b"\0\0\0\x18ftypisom" + b"\0" * 64)
    code, output, errors = deeplab(folder / "clip.mp4", folder / "a.jpg", "--out", tmp_path / "out")
    assert code == 1
    assert "clip.mp4 cannot be read as an image (it is of no known format)" in errors
    assert "1 of 2 images predicted" in output


def test_predict_does_not_write_among_its_inputs(model, tmp_path):
    save(tmp_path, "a.png")
    (tmp_path / "a_mask.png").write_text("mine")
    with pytest.raises(InputError, match="holds images to predict; choose another --out"):
        predict(model, [tmp_path / "a.png"], tmp_path, 0.5, lambda *_: None)
    assert (tmp_path / "a_mask.png").read_text() == "mine"


def test_images_of_one_name_do_not_overwrite_each_other(model, tmp_path):
    folders = [save(tmp_path / name, "x.png") for name in ("a", "b", "c")]
    (tmp_path / "d").mkdir()
    (tmp_path / "c/x.png").rename(tmp_path / "d/x_2.png")
    images = [path for folder in (*folders[:2], tmp_path / "d") for path in folder.iterdir()]
    predict(model, images, tmp_path / "out", 0.0, lambda *_: None)
    names = {path.name for path in (tmp_path / "out").glob("*_mask.png")}
    assert names == {"x_mask.png", "x_2_mask.png", "x_2_2_mask.png"}


def test_reports_keep_their_order_and_images_their_maps(model, tmp_path, monkeypatch):
    """However long each takes."""
    folder = save(tmp_path / "images", *(f"{number:02}.png" for number in range(24)))
    read = module.read_image

    def read_slowly(path, most):
        time.sleep(0.02 * (int(path.stem) % 5 == 0))
        return read(path, most)

    monkeypatch.setattr(module, "read_image", read_slowly)
    images, order = find_images([folder]).images, []
    predict(model, images, tmp_path / "out", 0.0, lambda path, _: order.append(path))
    assert order == images
    for path in images:
        expected = model(read_image(path), confidence=0.0, input_color_format="rgb")[0].segmentation_map
        np.testing.assert_array_equal(mask_of(tmp_path / "out" / f"{path.stem}_mask.png"), expected)
        assert len(np.unique(expected)) > 1


@pytest.mark.parametrize(("own_size", "most"), [(False, 2), (True, 1)])
def test_images_in_work_are_bounded(tiny_package, tmp_path, monkeypatch, own_size, most):
    running, seen, lock = [0], [], threading.Lock()

    def backend(images):
        with lock:
            running[0] += 1
            seen.append(running[0])
        time.sleep(0.02)
        with lock:
            running[0] -= 1
        return np.zeros((len(images), 5, *images.shape[2:]), np.float32)

    monkeypatch.setattr(module, "THREADS", 4)
    monkeypatch.setattr(module, "MOST_AT_ONCE", 2 * 30 * 40)
    folder = save(tmp_path / "images", *(f"{number}.png" for number in range(12)))
    model = SegmentationModel(read_package(tiny_package, "image" if own_size else None), backend)
    predict(model, find_images([folder]).images, tmp_path / "out", 0.0, lambda *_: None)
    assert len(seen) == 12
    assert max(seen) == most


def test_an_interruption_leaves_whole_files(model, tmp_path):
    folder = save(tmp_path / "images", *(f"{number:02}.png" for number in range(40)))

    def report(path, _):
        if path.stem == "03":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(model, find_images([folder]).images, tmp_path / "out", 0.0, report)
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    stems = {name[:2] for name in written}
    assert 4 <= len(stems) < 40
    assert written == sorted(f"{stem}_{kind}" for stem in stems for kind in ("overlay.jpg", "mask.png"))


def test_a_full_disk_is_one_line_and_leaves_nothing_by_halves(model, tmp_path, monkeypatch):
    folder = save(tmp_path / "images", "a.png", "b.png")
    whole = module.write_whole

    def full(path, save):
        def half(part):
            save(part)
            if path.name == "b_mask.png":
                raise OSError(28, "No space left on device")

        whole(path, half)

    monkeypatch.setattr(module, "write_whole", full)
    with pytest.raises(InputError, match=r"the results of .*b.png cannot be written into .*No space left on device"):
        predict(model, find_images([folder]).images, tmp_path / "out", 0.0, lambda *_: None)
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["a_mask.png", "a_overlay.jpg", "b_overlay.jpg"]


def test_an_image_that_the_model_refuses_is_named_and_passed_over(tiny_package, tmp_path, monkeypatch):
    """As one that is too large to be run in its own size."""
    folder = save(tmp_path / "images", "a.png", "c.png")
    save(folder, "b.png", size=(60, 80))
    monkeypatch.setattr("deeplab_jax.package.limits.MOST_BYTES", 4 * 8 * 60 * 70)

    def backend(images):
        return np.zeros((len(images), 5, *images.shape[2:]), np.float32)

    model, message = SegmentationModel(read_package(tiny_package, "image"), backend), []
    assert predict(model, find_images([folder]).images, tmp_path / "out", 0.0, lambda *each: message.append(each)) == 1
    assert [error for _, error in message][::2] == [None, None]
    assert str(message[1][1]).startswith(f"{folder / 'b.png'}: {tiny_package}: 1 images of 80x60")


def test_a_name_too_long_for_its_results_costs_no_other_image(model, tmp_path):
    long, message = f"{'a' * 250}.png", {}
    images = [*find_images([save(tmp_path / "in", long, "b.png")]).images]
    assert predict(model, images, tmp_path / "out", 0.5, lambda path, what: message.update({path.name: what})) == 1
    assert "File name too long" in str(message[long])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"b_mask.png", "b_overlay.jpg"}


def test_an_overlay_that_no_jpeg_can_hold_is_a_png(model, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "JPEG_SIDE", 100)
    folder = save(tmp_path / "images", "a.png")
    predict(model, [folder / "a.png"], tmp_path / "out", 0.0, lambda *_: None)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a_overlay.png", "a_mask.png"}
    with Image.open(tmp_path / "out/a_overlay.png") as drawn:
        image = read_image(folder / "a.png")
        ids = mask_of(tmp_path / "out/a_mask.png")
        np.testing.assert_array_equal(
            np.asarray(drawn)[..., ::-1],
            overlay_with_legend(image, ids, Classes(tuple(model.class_names), model.palette)),
        )


@pytest.mark.parametrize(("size", "count", "expected"), [(None, 1, None), (None, 4, 4), ("image", 4, None)])
def test_cores_are_shared_by_the_images_in_work(model, tiny_package, monkeypatch, size, count, expected):
    asked = []
    monkeypatch.setattr(module, "THREADS", 2)
    monkeypatch.setattr(module, "CORES", 7)
    monkeypatch.setattr(AutoModel, "from_pretrained", lambda *_, **options: asked.append(options) or model)
    module.load(tiny_package, size, count)
    assert asked == [{"size": size, "threads": expected}]


def test_every_file_of_a_folder_is_accounted_for(model, tmp_path):
    kinds = ["a.gif", "b.jfif", "c.JPG", "d.webp", "e.tiff", "f.bmp", "g.ppm", "h.jp2", "i.tga", "j.avif", "k.nosuffix"]
    folder = save(tmp_path / "images", *kinds)
    (folder / "k.nosuffix").rename(folder / "k")
    Image.new("RGB", (4, 4)).save(folder / "l.txt", "PNG")  # a name that says nothing of an image
    broken = {
        "m.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64,
        "n.dng": b"II*\0",
        "o.png": b"P6 is not what is in here",
        "p.jpg": b"",
    }
    others = {
        "q.mp4": b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + b"\0" * 64,
        "r.txt": b"P6 is a kind of image",
        "s.h5": b"\x89HDF\r\n\x1a\n" + b"\0" * 64,
        "t.mpg": b"\0\0\1\xb3" + b"\0" * 64,
        ".u.png": b"\0\5\x16\7",
        "v": b"",
    }
    for name, data in (broken | others).items():
        (folder / name).write_bytes(data)
    np.save(folder / "w.npy", np.zeros((4, 4, 3), np.uint8))
    for name in ("x", "y.png"):
        (folder / name).mkdir()
    actual, message = find_images([folder]), {}
    unreadable = predict(model, actual.images, tmp_path / "out", 0.5, lambda path, error: message.update({path: error}))
    assert [path.name for path, error in message.items() if isinstance(error, InputError)] == [*broken]
    assert unreadable == len(broken)
    assert all(str(path) in str(error) for path, error in message.items() if error)
    assert {path.name for path in (tmp_path / "out").glob("*_mask.png")} == {f"{c}_mask.png" for c in "abcdefghijkl"}
    assert actual.left() == [
        "7 other files left: .u.png, q.mp4, r.txt, s.h5, t.mpg, v, w.npy",
        "2 folders left: x, y.png",
    ]
    entries = {*actual.images, *actual.others, *actual.folders}
    assert entries == {*folder.iterdir()}
