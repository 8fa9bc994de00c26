"""The demo, with a smaller model and fewer pictures than its own."""

import numpy as np
import pytest
from rich.console import Console

from conftest import changed
from converters.onnx import export
from deeplab_jax import demo
from deeplab_jax.config import IGNORE
from deeplab_jax.data import generate
from deeplab_jax.data.formats import open_dataset


def test_the_demo_leaves_what_it_says(tiny_experiment, monkeypatch, tmp_path):
    monkeypatch.setattr(generate, "SPLITS", {"train": 8, "val": 3, "test": 6})

    def experiment(root):
        from dataclasses import replace

        config = changed(tiny_experiment, steps=2, validate_every=2, save_every=2)
        return replace(config, data=replace(config.data, root=root))

    monkeypatch.setattr(demo, "demo_experiment", experiment)
    console = Console(record=True, width=200)
    demo.run_demo(tmp_path / "demo", export, console)
    text = console.export_text()
    figures = [float(line.split()[3]) for line in text.splitlines() if "test mIoU" in line]
    assert len(figures) == 2
    assert figures[0] == pytest.approx(figures[1], abs=1e-3)
    report = (tmp_path / "demo" / "report.html").read_text()
    for picture in ("run/curves.png", "overlays/0000.png", "overlays/0005.png"):
        assert f'src="{picture}"' in report
        assert (tmp_path / "demo" / picture).stat().st_size > 1000


def test_generated_pictures_are_the_same_for_the_same_seed_and_hold_every_class(tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "SPLITS", {"train": 20})
    for folder in ("a", "b"):
        generate.generate(tmp_path / folder, 64, seed=3)
    first, second = (open_dataset(tmp_path / folder, "folder", "train") for folder in ("a", "b"))
    for i in range(20):
        np.testing.assert_array_equal(first[i].image, second[i].image)
        np.testing.assert_array_equal(first[i].mask, second[i].mask)
    ids = np.unique([first[i].mask for i in range(20)])
    assert ids.tolist() == [0, 1, 2, 3, 4, IGNORE]
