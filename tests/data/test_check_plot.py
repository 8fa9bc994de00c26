"""What `deeplab data check` prints and draws."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from deeplab_jax.classes import Classes, default_palette
from deeplab_jax.cli import commands
from deeplab_jax.config import IGNORE
from deeplab_jax.data.check import report as checking
from deeplab_jax.data.check.plot import draw, make_figure, under_mask, with_contrast
from deeplab_jax.data.check.report import Report
from deeplab_jax.data.check.split import Checked
from deeplab_jax.data.check.table import class_table
from deeplab_jax.data.dataset import Sample
from deeplab_jax.data.statistics import Statistics
from helpers.data_check import run

LONG = "balcony-fence-of-a-house"


def report_of(names, splits=("train", "val", "test"), size=(48, 64)):
    """Every split with six samples of all classes."""
    report, rng = Report("train", [], [], []), np.random.default_rng(0)
    for split in splits:
        checked = Checked(split, 6, Statistics(Classes(names, default_palette(len(names)))))
        for number in range(6):
            image, mask = rng.integers(0, 256, (*size, 3), np.uint8), rng.integers(0, len(names), size).astype(np.uint8)
            checked.samples.append(Sample(image, mask, f"{number}.png"))
            checked.statistics.add(checked.samples[-1])
        report.splits.append(checked)
    return report


def images_of(figure):
    """Titles and pixels."""
    parts = [ax for part in figure.subfigs for ax in part.axes]
    return [(ax.get_title(), np.asarray(ax.get_images()[0].get_array())) for ax in parts if ax.get_images()]


def test_samples_have_the_colors_of_their_classes():
    image = np.full((2, 4, 3), 100, np.uint8)
    mask = np.array([[0, 1, 2, IGNORE]] * 2, np.uint8)
    classes = Classes(("a", "b", "c"), ((0, 0, 0), (255, 0, 0), (0, 255, 50)))
    actual = under_mask(Sample(image, mask, "a.png"), classes)
    np.testing.assert_array_equal(actual[0], [(100, 100, 100), (193, 40, 40), (40, 193, 70), (208, 208, 208)])


def test_the_image_holds_samples_and_shares():
    report = report_of(("a", "b", "c"), ("train", "val"))
    figure = make_figure(report)
    shown = images_of(figure)
    assert [title for title, _ in shown] == [f"{split}: {i}.png" for split in ("train", "val") for i in range(6)]
    expected = [under_mask(sample, c.statistics.classes) for c in report.splits for sample in c.samples]
    np.testing.assert_array_equal([image for _, image in shown], expected)
    bars = [bar.get_width() for bar in figure.subfigs[-1].axes[0].patches]
    shares = [100 * checked.statistics.pixels / checked.statistics.pixels.sum() for checked in report.splits]
    np.testing.assert_allclose(bars, np.concatenate(shares))


def test_many_classes_leave_samples_large():
    figure = make_figure(report_of(tuple(f"{LONG} {i}" for i in range(171))))
    figure.draw_without_rendering()
    dots = 100 / figure.dpi
    assert figure.bbox.height * dots < 1700
    for part in figure.subfigs[:-1]:
        assert all(ax.get_window_extent().width * dots > 300 for ax in part.axes)
    names = [label.get_text() for ax in figure.subfigs[-1].axes for label in ax.get_yticklabels()]
    assert len(names) == 171


def test_masks_that_cannot_be_used_are_drawn(broken, tmp_path):
    for path in (broken / "masks").rglob("*.png"):
        Image.open(path).convert("RGB").save(path)
    Image.fromarray(np.array([[0, 5, 200]] * 3, np.uint8)).resize((48, 48), 0).save(broken / "masks/val/1.png")
    report = run(broken)
    shown = images_of(make_figure(report))
    names = [title.partition(" is ")[0].partition(" holds ")[0] for title, _ in shown]
    assert names == ["train: 0.png", "train: 1.png", "val: 0.png", "val: 1.png"]
    assert set(np.unique(shown[3][1])) == {0, 127, 255}
    draw(report, tmp_path / "check.png")


def test_values_are_spread_from_black_to_white():
    np.testing.assert_array_equal(with_contrast(np.array([[0, 1], [2, 65535]])), [[0, 85], [170, 255]])
    assert (with_contrast(np.full((2, 2), 7)) == 0).all()
    gray = np.array([[0, 1, 2]], np.uint8)[..., None].repeat(3, -1)
    np.testing.assert_array_equal(with_contrast(gray), [[0, 127, 255]])
    colors = np.array([[(1, 2, 3), (0, 0, 0)]], np.uint8)
    assert with_contrast(colors) is colors


@pytest.mark.parametrize("name", ["$x^{$", "\\frac", "\u80cc\u666f", "\U0001f436"])
def test_names_may_hold_anything(tmp_path, name):
    report = report_of((name, "b"), (f"train {name}",))
    report.splits[0].samples[0] = replace(report.splits[0].samples[0], name=name)
    report.splits[0].failed.append((name, np.zeros((4, 4), np.uint8)))
    draw(report, tmp_path / "check.png")


def test_a_set_of_void_is_drawn(tmp_path):
    report = report_of(("a", "b"))
    for checked in report.splits:
        checked.statistics.pixels[:] = 0
    draw(report, tmp_path / "check.png")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_keeps_names_and_numbers_whole(width):
    report = report_of((LONG, "b", "[c]"))
    report.splits[0].statistics.pixels[:] = 1_000_000, 200, 7
    console = Console(file=io.StringIO(), width=width)
    console.print(class_table(report))
    lines = console.file.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    assert all(word in "".join(lines) for word in ("train %", "test %", "images", "suggested", "weight"))
    rows = [line.split() for line in lines if line.strip()[:1].isdigit()]
    assert width == 60 or [row[:2] for row in rows] == [["0", LONG], ["1", "b"], ["2", "[c]"]]
    assert [row[2] for row in rows] == ["100", "0.02", "0.0007"]
    assert [row[5] for row in rows] == ["18", "18", "18"]


def test_without_training_images_no_weights_are_suggested():
    report = report_of(("a", "b"))
    report.splits[0].statistics = Statistics(report.splits[0].statistics.classes)
    (*_, weights) = class_table(report).columns
    assert list(weights.cells) == ["-", "-"]


def command(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["deeplab", "data", "check", *map(str, arguments)])
    return commands.main()


def test_the_command_prints_draws_and_fails_on_faults(broken, tmp_path, monkeypatch, capsys):
    image = tmp_path / "check.png"
    arguments = ("--data.root", broken, "--plot", image)
    assert command(monkeypatch, *arguments) == 0
    stated = capsys.readouterr().out
    assert "train: 12 images of 48x48 (12)" in stated
    assert "ids in the masks 0-4, 255" in stated
    assert "suggested" in stated
    assert "nothing is wrong" in stated
    assert np.array(Image.open(image)).shape[1] > 1000

    (broken / "masks/val/2.png").unlink()
    assert command(monkeypatch, *arguments) == 1
    errors = capsys.readouterr().err
    assert "images/val/2.png has no mask" in errors
    assert "error: 1 fault in" in errors
    assert command(monkeypatch, "--data.root", tmp_path / "nowhere") == 1
    assert capsys.readouterr().err.count("does not exist or is no folder") == 1
    monkeypatch.setattr("sys.argv", ["deeplab", "data"])
    assert commands.main() == 2


def test_the_command_takes_names_of_splits(broken, tmp_path, monkeypatch, capsys):
    for kind in ("images", "masks"):
        (broken / kind / "val").rename(broken / kind / "holdout")
    arguments = ("--data.root", broken, "--plot", tmp_path / "check.png", "--data.val-split", "holdout")
    assert command(monkeypatch, *arguments) == 0
    assert "holdout: 5 images" in capsys.readouterr().out
    assert command(monkeypatch, *arguments, "--data.train-split", "most") == 1
    assert "no most split" in capsys.readouterr().err


def test_the_command_shows_what_there_is_where_training_images_cannot_be_used(broken, tmp_path, monkeypatch, capsys):
    for path in (broken / "masks/train").iterdir():
        Image.open(path).convert("RGB").save(path)
    image = tmp_path / "check.png"
    assert command(monkeypatch, "--data.root", broken, "--plot", image) == 1
    stated = capsys.readouterr()
    assert "train: none of 12 images can be used" in stated.out
    assert "polygon" in stated.out
    assert stated.err.count("is a RGB image") == 12
    assert image.is_file()


def test_splits_of_other_classes_are_a_fault_and_not_compared(broken, tmp_path, monkeypatch, capsys):
    def find_other(root, format, split):
        dataset = find(root, format, split)
        fewer = Classes(("background", "disc"), default_palette(2))
        return replace(dataset, classes=fewer) if split == "val" else dataset

    find = checking.find_dataset
    monkeypatch.setattr(checking, "find_dataset", find_other)
    image = tmp_path / "check.png"
    assert command(monkeypatch, "--data.root", broken, "--plot", image) == 1
    stated = capsys.readouterr()
    assert "val has the classes background, disc, but train background, disc, bar" in stated.err
    assert "suggested" not in stated.out
    assert not image.exists()
