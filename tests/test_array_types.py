"""Annotated shapes are held against every call in the tests, and ask for nothing in production."""

import runpy
import sys

import jaxtyping
import numpy as np
import pytest

from deeplab_jax import array_types
from deeplab_jax.config import PreprocessConfig
from deeplab_jax.image.preprocess import preprocess
from deeplab_jax.image.read import size_of
from deeplab_jax.inference.postprocess import HostArray, SemanticSegmentationResult, classify

IMAGE = np.zeros((4, 6, 3), np.uint8)


@pytest.mark.parametrize(
    "call",
    [
        lambda: classify(np.zeros((4, 6), np.float32), 0.5),  # no axis of classes
        lambda: classify(np.zeros((2, 4, 6), np.float64), 0.5),
        lambda: preprocess(IMAGE[..., :2], PreprocessConfig(size=(4, 6))),
        lambda: preprocess(IMAGE.astype(np.float64), PreprocessConfig(size=(4, 6))),
        lambda: size_of(IMAGE[0, 0]),
    ],
)
def test_a_wrong_array_is_refused_in_tests(call):
    with pytest.raises(jaxtyping.TypeCheckError):
        call()


def test_fields_of_one_result_are_of_one_size():
    ids, confidence = np.zeros((4, 6), np.int64).view(HostArray), np.zeros((4, 5), np.float32).view(HostArray)
    with pytest.raises(jaxtyping.TypeCheckError):
        SemanticSegmentationResult(ids, confidence)


def test_the_names_are_jaxtypings():
    assert {name: getattr(array_types, name) for name in array_types.__all__} == {
        name: getattr(jaxtyping, name) for name in array_types.__all__
    }


def test_without_jaxtyping_the_names_are_the_array_alone(monkeypatch):
    monkeypatch.delitem(sys.modules, "jaxtyping")
    names = runpy.run_path(array_types.__file__)
    assert "jaxtyping" not in sys.modules
    assert {names[name][np.ndarray, "h w"] for name in names["__all__"]} == {np.ndarray}
