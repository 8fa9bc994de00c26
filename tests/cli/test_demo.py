"""The demo, with a smaller model and fewer images than its own."""

import numpy as np
import pytest

from converters.export.onnx_graph.onnx_package import export
from deeplab_jax import demo
from deeplab_jax.config import IGNORE
from deeplab_jax.data import generate
from deeplab_jax.data.formats import open_dataset
from deeplab_jax.errors import InputError
from helpers.fixtures import changed


@pytest.mark.slow
def test_the_demo_leaves_what_it_says(tiny_experiment, monkeypatch, tmp_path):
    monkeypatch.setattr(generate, "SPLITS", {"train": 8, "val": 3, "test": 6})

    def experiment(root):
        from dataclasses import replace

        config = changed(tiny_experiment, steps=2, validate_every=2, save_every=2)
        return replace(config, data=replace(config.data, root=root))

    monkeypatch.setattr(demo, "demo_experiment", experiment)
    stated = []
    demo.run_demo(tmp_path / "demo", export, stated.append)
    figures = [float(line.split()[3]) for line in stated if "test mIoU" in line]
    assert len(figures) == 2
    assert figures[0] == pytest.approx(figures[1], abs=1e-3)
    report = (tmp_path / "demo" / "report.html").read_text()
    for image in ("run/curves.png", "overlays/0000.png", "overlays/0005.png"):
        assert f'src="{image}"' in report
        assert (tmp_path / "demo" / image).stat().st_size > 1000
    demo.run_demo(tmp_path / "demo", export, stated.append)  # a second time, over its own folder

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "classes.txt").write_text("sky")
    with pytest.raises(InputError, match="mine exists; remove it or choose another --out"):
        demo.run_demo(tmp_path / "mine", export, stated.append)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["classes.txt"]


def test_generated_images_are_the_same_for_the_same_seed_and_hold_every_class(tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "SPLITS", {"train": 20})
    for folder in ("a", "b"):
        generate.generate(tmp_path / folder, 64, seed=3)
    first, second = (open_dataset(tmp_path / folder, "folder", "train") for folder in ("a", "b"))
    for i in range(20):
        np.testing.assert_array_equal(first[i].image, second[i].image)
        np.testing.assert_array_equal(first[i].mask, second[i].mask)
    ids = np.unique([first[i].mask for i in range(20)])
    assert ids.tolist() == [0, 1, 2, 3, 4, IGNORE]
