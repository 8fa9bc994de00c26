"""Packages by name."""

import pytest

from deeplab_jax import AutoModel
from deeplab_jax.errors import InputError
from deeplab_jax.package.find import find_package
from helpers import pixelwise


def test_names_are_looked_up_in_the_directory_of_models(tmp_path, monkeypatch):
    (tmp_path / "models" / "project").mkdir(parents=True)
    pixelwise.write(tmp_path / "models" / "project" / "3", pixelwise.config())
    pixelwise.write(tmp_path / "models" / "alone", pixelwise.config())
    monkeypatch.delenv("DEEPLAB_MODELS", raising=False)
    with pytest.raises(InputError, match=r"project/3 does not exist .* DEEPLAB_MODELS"):
        AutoModel.from_pretrained("project/3")
    for name in ("project/3", "alone"):
        AutoModel.from_pretrained(name, model_directory=tmp_path / "models")
    monkeypatch.setenv("DEEPLAB_MODELS", str(tmp_path / "models"))
    assert len(AutoModel.from_pretrained("project/3").class_names) == 4
    with pytest.raises(InputError, match="holds no package project/4"):
        AutoModel.from_pretrained("project/4")
    monkeypatch.chdir(tmp_path / "models" / "project")
    assert str(find_package("3", None)) == "3"  # a folder that is there comes first


def test_names_do_not_lead_out_of_the_directory_of_models(tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    pixelwise.write(tmp_path / "outside", pixelwise.config())
    for name in ("../outside", "a/../../outside", "a/b/c", "..\\outside", "no\0name", "/outside"):
        with pytest.raises(InputError, match="neither a folder nor a name such as project or project/3"):
            find_package(name, models)
    (models / "link").symlink_to(tmp_path / "outside")  # whose directory it is wants it there
    assert find_package("link", models) == models / "link"
    with pytest.raises(InputError, match="cannot be looked up"):
        find_package("a" * 300, models)
    with pytest.raises(InputError, match=r"cannot be looked up: .*null byte"):
        find_package("project", "no\0directory")
