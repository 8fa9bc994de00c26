"""Building TensorRT engines, as far as that can be seen without a GPU: profiles, order of calls, checks, errors."""

import json
import sys
import types

import numpy as np
import pytest

from converters.export.tensorrt_engine.tensorrt_package import Profile, Span, export
from deeplab_jax.errors import InputError
from deeplab_jax.inference.backends import tensorrt_backend
from deeplab_jax.package.folder import read_package
from helpers.tensorrt_packages import SIZE, UP_TO_8, built, expected, onnx_package, random_images, say_nothing


def test_profiles_give_the_shapes_that_an_engine_is_built_for():
    assert Profile().shapes((None, 3, 4, 6), SIZE) == ((1, 3, 4, 6), (1, 3, 4, 6), (8, 3, 4, 6))
    wide = Profile(Span(2, 4, 16), Span(2, 4, 8), Span(3, 6, 9))
    assert wide.shapes((None, 3, None, None), SIZE) == ((2, 3, 2, 3), (4, 3, 4, 6), (16, 3, 8, 9))
    assert Profile(Span(5, 5, 5)).shapes((5, 3, 4, 6), SIZE) == ((5, 3, 4, 6),) * 3


@pytest.mark.parametrize(
    ("profile", "declared", "fault"),
    [
        (Profile(Span(0, 1, 2)), (None, 3, 4, 6), r"batch \(0, 1, 2\) must rise"),
        (Profile(Span(1, 4, 2)), (None, 3, 4, 6), r"batch \(1, 4, 2\) must rise"),
        (Profile(Span(1, 1, 8)), (5, 3, 4, 6), "whose batch is 5; give 5 three times"),
        (Profile(height=Span(2, 4, 8)), (None, 3, 4, None), "whose height is 4"),
        (Profile(width=Span(7, 8, 9)), (None, 3, None, None), r"width \(7, 8, 9\) leaves out 6"),
    ],
)
def test_profiles_that_do_not_fit_are_refused(profile, declared, fault):
    with pytest.raises(InputError, match=fault):
        profile.shapes(declared, SIZE)


def test_a_build_asks_for_what_the_graph_says_and_keeps_the_times(fakes, onnx_source, tmp_path):
    stated = []
    worst = export(onnx_source, tmp_path / "first", Profile(Span(1, 2, 8)), lambda *progress: stated.append(progress))
    assert worst == 0
    assert stated == [("Building", 0, 2), ("Building", 1, 2), ("Building", 2, 2), ("Building", 2, 2)]
    network = fakes.networks[0]
    assert network.flags == 1 << fakes.tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    assert network.config.cleared == [fakes.tensorrt.BuilderFlag.TF32]
    assert network.config.profile.shapes == ((1, 3, 4, 6), (2, 3, 4, 6), (8, 3, 4, 6))
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == [
        "class_names.txt", "engine.plan", "inference_config.json", "model_config.json", "trt_config.json",
    ]  # fmt: skip
    assert read_package(tmp_path / "first").backend == "trt"

    (kept,) = (tmp_path / "cache" / "deeplab_jax").iterdir()
    assert kept.name == "tensorrt-10-12-0-36-Fake-GPU-1.timing"
    built(onnx_source, tmp_path / "second")
    assert fakes.caches == [b"", b" and more"]
    kept.write_bytes(b"of another GPU")
    built(onnx_source, tmp_path / "third")
    assert fakes.caches[2:] == [b"of another GPU", b""]
    assert kept.read_bytes() == b" and more"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError()])
def test_what_the_report_raises_ends_the_build(fakes, onnx_source, tmp_path, error):
    def stop(phase, done, steps):
        stated.append(done)
        if done:
            raise error

    stated = []
    with pytest.raises(type(error)):
        export(onnx_source, tmp_path / "out", Profile(), stop)
    assert stated == [0, 1, 2]  # 2: the phase is over; its second step was not made
    assert not hasattr(fakes.networks[0], "config")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "cache").exists()


def test_what_the_parser_has_against_a_graph_is_one_line(fakes, onnx_source, tmp_path):
    for name in ("a", "b", "c", "d"):
        says = {"node_operator": "Conv", "node_name": name, "desc": "no kernel"}
        fakes.parser_errors.append(types.SimpleNamespace(**{key: lambda v=value: v for key, value in says.items()}))
    with pytest.raises(InputError, match=r"weights.onnx: Conv a: no kernel; Conv b: no kernel; Conv c: no kernel$"):
        export(onnx_source, tmp_path / "out", Profile(), say_nothing)


@pytest.mark.parametrize("spoil", [1.0, np.nan])
def test_a_wrong_engine_is_not_put_in_place(fakes, onnx_source, tmp_path, spoil):
    fakes.spoil = spoil
    with pytest.raises(InputError, match=r"the engine differs from .*weights.onnx by .*; .*out was not written"):
        export(onnx_source, tmp_path / "out", Profile(), say_nothing)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "onnx"]


def test_a_graph_of_a_fixed_batch_makes_an_engine_of_that_batch(fakes, tmp_path):
    source = onnx_package(tmp_path / "onnx", images="float[2,3,4,6] images", logits="float[2,2,4,6] logits")
    out = built(source, tmp_path / "out", Span(2, 2, 2))
    assert json.loads((out / "trt_config.json").read_text()) == {"static_batch_size": 2}
    np.testing.assert_array_equal(
        tensorrt_backend.load(read_package(out), None)(random_images(3)), expected(random_images(3))
    )


def test_an_engine_for_many_sizes_is_checked_at_the_least_too(fakes, tmp_path):
    source = onnx_package(tmp_path / "onnx", images="float[batch,3,h,w] images", logits="float[batch,2,h,w] logits")
    export(source, tmp_path / "out", Profile(UP_TO_8, Span(2, 4, 8), Span(3, 6, 9)), say_nothing)
    assert fakes.networks[0].config.profile.shapes == ((1, 3, 2, 3), (1, 3, 4, 6), (8, 3, 8, 9))
    assert {*fakes.shapes} == {(1, 3, *SIZE), (3, 3, *SIZE), (1, 3, 2, 3), (3, 3, 2, 3)}
    np.testing.assert_array_equal(
        tensorrt_backend.load(read_package(tmp_path / "out"), None)(random_images(3)), expected(random_images(3))
    )


def test_faults_are_named_before_a_gpu_is_asked_for(monkeypatch, onnx_source, tmp_path):
    for name in ("tensorrt", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    out = tmp_path / "out"
    bad = onnx_package(tmp_path / "bad", body="x = Conv (images, kernel) logits = Mish (x)")
    for folder, profile, fault in (
        (bad, Profile(), r"cannot take .*weights.onnx: Mish logits: this operator is not known to be supported$"),
        (onnx_source, Profile(Span(2, 1, 1)), "must rise"),
        (onnx_source, Profile(), r"needs TensorRT; install it with: pip install 'deeplab_jax\[tensorrt\]'"),
    ):
        with pytest.raises(InputError, match=fault):
            export(folder, out, profile, say_nothing)
    assert not out.exists()


def test_a_machine_without_a_gpu_is_told_so(fakes, onnx_source, tmp_path):
    fakes.gpus = 0
    with pytest.raises(InputError, match=r"needs an NVIDIA GPU, and CUDA finds none here \(cudaErrorNoDevice\)$"):
        export(onnx_source, tmp_path / "out", Profile(), say_nothing)


def test_a_driver_that_tensorrt_cannot_use_is_one_line(fakes, onnx_source, tmp_path):
    fakes.memory = 0
    with pytest.raises(InputError, match=r"TensorRT 10.12.0.36 cannot start on this machine"):
        export(onnx_source, tmp_path / "out", Profile(), say_nothing)
