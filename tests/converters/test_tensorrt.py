"""TensorRT packages, as far as that can be seen without a GPU: arithmetic, order of calls, memory, threads, errors."""

import gc
import json
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from converters.export.tensorrt_engine.tensorrt_package import Profile, Span, export, trt_config
from deeplab_jax import AutoModel
from deeplab_jax.classes import Classes
from deeplab_jax.config import PreprocessConfig
from deeplab_jax.errors import InputError
from deeplab_jax.inference.backends import tensorrt_backend
from deeplab_jax.inference.backends.tensorrt_backend import Batches, read_batches
from deeplab_jax.package.folder import read_package, write_package
from helpers.fake_tensorrt import PLAN, Fakes

SIZE = (4, 6)
KERNEL = np.array([[1, 2, 3], [-4, 5, 6]], np.float32)
UP_TO_8 = Span(1, 1, 8)
NEED_FAKES = (
    "converters.export.tensorrt_engine.build",
    "deeplab_jax.inference.backends.tensorrt_engine",
)  # which import TensorRT


@pytest.fixture(scope="module")
def modules():
    return Fakes()


@pytest.fixture
def fakes(modules, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    modules.reset()
    modules.install(monkeypatch)
    yield modules
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
def source(tmp_path):
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


def test_the_batch_sizes_beside_an_engine_are_what_the_shared_api_reads(tmp_path):
    path = tmp_path / "trt_config.json"
    for span, written in (
        (Span(4, 4, 4), {"static_batch_size": 4}),
        (Span(1, 2, 8), {"dynamic_batch_size_min": 1, "dynamic_batch_size_opt": 2, "dynamic_batch_size_max": 8}),
    ):
        assert trt_config(span) == written
        path.write_text(json.dumps(written))
        assert read_batches(path) == Batches(span.least, span.most)


@pytest.mark.parametrize(
    "config",
    [
        "[]",
        "{}",
        '{"static_batch_size": 0}',
        '{"static_batch_size": "8"}',
        '{"static_batch_size": true}',
        '{"dynamic_batch_size_min": 1, "dynamic_batch_size_opt": 9, "dynamic_batch_size_max": 8}',
        '{"dynamic_batch_size_min": 1, "dynamic_batch_size_max": 8}',
        "{",
    ],
)
def test_other_batch_sizes_are_refused(tmp_path, config):
    path = tmp_path / "trt_config.json"
    path.write_text(config)
    with pytest.raises(InputError, match=r"trt_config\.json"):
        read_batches(path)


@pytest.mark.parametrize("batch", [Span(1, 1, 1), Span(1, 1, 4), Span(3, 3, 4), Span(2, 4, 16)])
def test_any_number_of_images_goes_through_in_pieces(fakes, source, tmp_path, batch):
    run = tensorrt_backend.load(read_package(built(source, tmp_path / "trt", batch)), "gpu")
    for count in range(1, 10):
        fakes.shapes.clear()
        images = random_images(count, count)
        np.testing.assert_array_equal(run(images), expected(images))
        np.testing.assert_array_equal(run(images.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)), expected(images))
        assert len(fakes.shapes) == 2 * -(-count // batch.most)
        assert all(batch.least <= shape[0] <= batch.most for shape in fakes.shapes)


def test_threads_take_turns(fakes, source, tmp_path):
    run = tensorrt_backend.load(read_package(built(source, tmp_path / "trt", Span(1, 1, 4))), None)
    batches = [random_images(1 + seed % 7, seed) for seed in range(80)]
    with ThreadPoolExecutor(8) as pool:
        for images, logits in zip(batches, pool.map(run, batches), strict=True):
            np.testing.assert_array_equal(logits, expected(images))


@pytest.mark.slow
def test_memory_is_freed_with_the_engine(fakes, source, tmp_path):
    package = read_package(built(source, tmp_path / "trt"))
    gc.collect()
    assert fakes.alive == {}
    run = tensorrt_backend.load(package, None)
    run(random_images(2))
    assert len(fakes.alive) == 3  # a stream, the input and the output
    del run
    gc.collect()
    assert fakes.alive == {}


@pytest.mark.slow
def test_a_full_gpu_is_one_line_and_leaves_nothing_behind(fakes, source, tmp_path):
    package = read_package(built(source, tmp_path / "trt"))
    gc.collect()
    fakes.memory = 4 * 8 * 2 * 4 * 6  # bytes: enough for 8 images of output, not of input
    with pytest.raises(InputError, match=r"engine.plan cannot be loaded: CUDA: cudaErrorMemoryAllocation$"):
        tensorrt_backend.load(package, None)
    gc.collect()
    assert fakes.alive == {}


def test_what_does_not_fit_the_engine_is_refused(fakes, source, tmp_path):
    folder = built(source, tmp_path / "trt", Span(1, 1, 4))

    def refused(fault, device=None):
        with pytest.raises(InputError, match=fault):
            tensorrt_backend.load(read_package(folder), device)

    refused("cannot run on the device 'cpu'", "cpu")
    run = tensorrt_backend.load(read_package(folder), None)
    with pytest.raises(InputError, match=r"takes images of \(4, 6\) to \(4, 6\), not of \(5, 6\); give another"):
        run(np.zeros((1, 3, 5, 6), np.float32))
    (folder / "trt_config.json").write_text('{"static_batch_size": 8}')
    refused("takes 1 to 4 images at once, but trt_config.json says 8 to 8")
    (folder / "trt_config.json").write_text('{"static_batch_size": 4}')
    inference = json.loads((folder / "inference_config.json").read_text())
    inference["network_input"]["training_input_size"] = {"height": 5, "width": 6}
    (folder / "inference_config.json").write_text(json.dumps(inference))
    refused(r"takes images of \(4, 6\) to \(4, 6\), but inference_config.json says \(5, 6\)")
    (folder / "engine.plan").write_bytes(b"engine of 11.0: ")
    refused("by TensorRT 10.12.0.36: Version tag does not match .an engine runs only with the version")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"logits": "float[batch,2,h,w] logits, float[batch,2,h,w] more",
          "body": "logits = Conv (images, kernel) more = Relu (logits)"}, "one input and one output"),
        ({"logits": "float16[batch,2,h,w] logits",
          "body": "x = Conv (images, kernel) logits = Cast <to = 10> (x)"}, "must be float32"),
        ({"logits": "float[batch] logits",
          "body": "logits = ReduceSum <keepdims = 0> (images, axes) "}, "must have 4 axes"),
    ],
)  # fmt: skip
def test_engines_of_others_must_have_our_ports(fakes, source, tmp_path, changes, fault):
    folder = built(source, tmp_path / "trt")
    model = graph(**changes) if "axes" not in changes["body"] else summed(changes)
    profile = json.dumps([[1, 3, 4, 6], [1, 3, 4, 6], [8, 3, 4, 6]]).encode()
    (folder / "engine.plan").write_bytes(PLAN + profile + b"\n" + model.SerializeToString())
    with pytest.raises(InputError, match=fault):
        tensorrt_backend.load(read_package(folder), None)


def summed(changes):
    return parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 18]> graph (float[batch,3,4,6] images) => ({changes["logits"]}) '
        f"<int64[3] axes = {{1, 2, 3}}> {{ {changes['body']} }}"
    )


def test_a_build_asks_for_what_the_graph_says_and_keeps_the_times(fakes, source, tmp_path):
    stated = []
    worst = export(source, tmp_path / "first", Profile(Span(1, 2, 8)), lambda *progress: stated.append(progress))
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
    built(source, tmp_path / "second")
    assert fakes.caches == [b"", b" and more"]
    kept.write_bytes(b"of another GPU")
    built(source, tmp_path / "third")
    assert fakes.caches[2:] == [b"of another GPU", b""]
    assert kept.read_bytes() == b" and more"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError()])
def test_what_the_report_raises_ends_the_build(fakes, source, tmp_path, error):
    def stop(phase, done, steps):
        stated.append(done)
        if done:
            raise error

    stated = []
    with pytest.raises(type(error)):
        export(source, tmp_path / "out", Profile(), stop)
    assert stated == [0, 1, 2]  # 2: the phase is over; its second step was not made
    assert not hasattr(fakes.networks[0], "config")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "cache").exists()


def test_what_the_parser_has_against_a_graph_is_one_line(fakes, source, tmp_path):
    for name in ("a", "b", "c", "d"):
        says = {"node_operator": "Conv", "node_name": name, "desc": "no kernel"}
        fakes.parser_errors.append(types.SimpleNamespace(**{key: lambda v=value: v for key, value in says.items()}))
    with pytest.raises(InputError, match=r"weights.onnx: Conv a: no kernel; Conv b: no kernel; Conv c: no kernel$"):
        export(source, tmp_path / "out", Profile(), say_nothing)


@pytest.mark.parametrize("spoil", [1.0, np.nan])
def test_a_wrong_engine_is_not_put_in_place(fakes, source, tmp_path, spoil):
    fakes.spoil = spoil
    with pytest.raises(InputError, match=r"the engine differs from .*weights.onnx by .*; .*out was not written"):
        export(source, tmp_path / "out", Profile(), say_nothing)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "onnx"]


def test_a_graph_of_a_fixed_batch_makes_an_engine_of_that_batch(fakes, tmp_path):
    source = onnx_package(tmp_path / "onnx", images="float[2,3,4,6] images", logits="float[2,2,4,6] logits")
    out = built(source, tmp_path / "out", Span(2, 2, 2))
    assert json.loads((out / "trt_config.json").read_text()) == {"static_batch_size": 2}
    np.testing.assert_array_equal(
        tensorrt_backend.load(read_package(out), None)(random_images(3)), expected(random_images(3))
    )


def test_one_logit_is_told_by_its_sigmoid(fakes, tmp_path):
    body = "both = Conv (images, kernel) id = Constant <value_ints = [1]> () logits = Gather <axis = 1> (both, id)"
    source = onnx_package(tmp_path / "onnx", logits="float[batch,1,h,w] logits", body=body)
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    for folder in (source, built(source, tmp_path / "out")):
        model = AutoModel.from_pretrained(folder)
        likeliest, usual, all_of_it = (model(image, confidence=c)[0].segmentation_map for c in ("argmax", 0.5, 0.0))
        assert 0 < likeliest.sum() < likeliest.size
        np.testing.assert_array_equal(likeliest, usual)
        assert all_of_it.all()


def test_an_engine_for_many_sizes_is_checked_at_the_least_too(fakes, tmp_path):
    source = onnx_package(tmp_path / "onnx", images="float[batch,3,h,w] images", logits="float[batch,2,h,w] logits")
    export(source, tmp_path / "out", Profile(UP_TO_8, Span(2, 4, 8), Span(3, 6, 9)), say_nothing)
    assert fakes.networks[0].config.profile.shapes == ((1, 3, 2, 3), (1, 3, 4, 6), (8, 3, 8, 9))
    assert {*fakes.shapes} == {(1, 3, *SIZE), (3, 3, *SIZE), (1, 3, 2, 3), (3, 3, 2, 3)}
    np.testing.assert_array_equal(
        tensorrt_backend.load(read_package(tmp_path / "out"), None)(random_images(3)), expected(random_images(3))
    )


def test_images_of_their_own_size_must_be_within_the_engine(fakes, tmp_path):
    source = onnx_package(tmp_path / "onnx", images="float[batch,3,h,w] images", logits="float[batch,2,h,w] logits")
    write_size(source, None)
    export(source, tmp_path / "out", Profile(UP_TO_8, Span(2, 4, 8), Span(3, 6, 9)), say_nothing)
    model = AutoModel.from_pretrained(tmp_path / "out")
    for size in ((2, 9), (8, 3)):
        (result,) = model(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
        assert result.segmentation_map.shape == size
        assert fakes.shapes[-1] == (1, 3, *size)
    with pytest.raises(InputError, match=r"takes images of \(2, 3\) to \(8, 9\), not of \(9, 9\); give another size="):
        model(np.zeros((9, 9, 3), np.uint8))
    fitted = AutoModel.from_pretrained(tmp_path / "out", size=(8, 9))
    assert fitted(np.zeros((90, 50, 3), np.uint8))[0].segmentation_map.shape == (90, 50)
    with pytest.raises(InputError, match=r"to \(8, 9\), but size= says \(9, 9\); give another size="):
        AutoModel.from_pretrained(tmp_path / "out", size=(9, 9))
    export(source, tmp_path / "fixed", Profile(UP_TO_8), say_nothing)
    assert not read_package(tmp_path / "fixed").any_size


def write_size(folder, size):
    """Makes a package one for images of a size, or of any."""
    path = folder / "inference_config.json"
    config = json.loads(path.read_text())
    dynamic = {"dynamic_spatial_size_supported": size is None, "dynamic_spatial_size_mode": {"type": "any-size"}}
    config["network_input"] |= {"training_input_size": size, "exact": {"size": SIZE}, **dynamic}
    path.write_text(json.dumps(config))


def test_faults_are_named_before_a_gpu_is_asked_for(monkeypatch, source, tmp_path):
    for name in ("tensorrt", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    out = tmp_path / "out"
    bad = onnx_package(tmp_path / "bad", body="x = Conv (images, kernel) logits = Mish (x)")
    for folder, profile, fault in (
        (bad, Profile(), r"cannot take .*weights.onnx: Mish logits: this operator is not known to be supported$"),
        (source, Profile(Span(2, 1, 1)), "must rise"),
        (source, Profile(), r"needs TensorRT; install it with: pip install 'deeplab_jax\[tensorrt\]'"),
    ):
        with pytest.raises(InputError, match=fault):
            export(folder, out, profile, say_nothing)
    assert not out.exists()


def test_a_machine_without_a_gpu_is_told_so(fakes, source, tmp_path):
    fakes.gpus = 0
    with pytest.raises(InputError, match=r"needs an NVIDIA GPU, and CUDA finds none here \(cudaErrorNoDevice\)$"):
        export(source, tmp_path / "out", Profile(), say_nothing)


def test_a_driver_that_tensorrt_cannot_use_is_one_line(fakes, source, tmp_path):
    fakes.memory = 0
    with pytest.raises(InputError, match=r"TensorRT 10.12.0.36 cannot start on this machine"):
        export(source, tmp_path / "out", Profile(), say_nothing)
