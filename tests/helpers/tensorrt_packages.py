"""TensorRT's stand-in, packages of one convolution for it, and what they give."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from converters.export.tensorrt_engine.tensorrt_package import Profile, Span, export
from deeplab_jax.classes import Classes
from deeplab_jax.config import PreprocessConfig
from deeplab_jax.package.folder import write_package
from helpers.fake_tensorrt import Fakes

SIZE = (4, 6)
KERNEL = np.array([[1, 2, 3], [-4, 5, 6]], np.float32)
UP_TO_8 = Span(1, 1, 8)
NEED_FAKES = (
    "converters.export.tensorrt_engine.build",
    "deeplab_jax.inference.backends.tensorrt_engine",
)  # which import TensorRT


@pytest.fixture(scope="session")  # as beartype takes two classes of one name for the same
def fake_modules():
    return Fakes()


@pytest.fixture
def fakes(fake_modules, monkeypatch, tmp_path):
    """In place of TensorRT, CUDA and a GPU."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fake_modules.reset()
    fake_modules.install(monkeypatch)
    yield fake_modules
    for name in NEED_FAKES:
        sys.modules.pop(name, None)


def graph(images="float[batch,3,4,6] images", logits="float[batch,2,h,w] logits", body=""):
    values = ", ".join(str(int(value)) for value in KERNEL.ravel())
    return parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 18]> graph ({images}) => ({logits}) '
        f"<float[2,3,1,1] kernel = {{{values}}}> {{ {body or 'logits = Conv (images, kernel)'} }}"
    )


def onnx_package(folder, **changes) -> Path:
    classes = Classes(("background", "a"), ((0, 0, 0), (1, 1, 1)))
    write_package(
        folder, "onnx", classes, PreprocessConfig(size=SIZE), lambda f: onnx.save(graph(**changes), f / "weights.onnx")
    )
    return folder


@pytest.fixture
def onnx_source(tmp_path):
    """The ONNX package that most engines are built from."""
    return onnx_package(tmp_path / "onnx")


def say_nothing(phase: str, done: int, steps: int) -> None:
    pass


def built(source, out, batch=UP_TO_8):
    export(source, out, Profile(batch), say_nothing)
    return out


def expected(images):
    return np.einsum("kc,bchw->bkhw", KERNEL, images)


def random_images(count, seed=0):
    return np.random.default_rng(seed).integers(-9, 9, (count, 3, *SIZE)).astype(np.float32)
