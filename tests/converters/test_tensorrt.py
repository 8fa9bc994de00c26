"""Running TensorRT packages, as far as that can be seen without a GPU: arithmetic, memory, threads, sizes, errors."""

import gc
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import parser

from converters.export.tensorrt_engine.tensorrt_package import Profile, Span, export, trt_config
from deeplab_jax import AutoModel
from deeplab_jax.errors import InputError
from deeplab_jax.inference.backends import tensorrt_backend
from deeplab_jax.inference.backends.tensorrt_backend import Batches, read_batches
from deeplab_jax.package.folder import read_package
from helpers.fake_tensorrt import PLAN
from helpers.tensorrt_packages import SIZE, UP_TO_8, built, expected, graph, onnx_package, random_images, say_nothing


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
def test_any_number_of_images_goes_through_in_pieces(fakes, onnx_source, tmp_path, batch):
    run = tensorrt_backend.load(read_package(built(onnx_source, tmp_path / "trt", batch)), "gpu")
    for count in range(1, 10):
        fakes.shapes.clear()
        images = random_images(count, count)
        np.testing.assert_array_equal(run(images), expected(images))
        np.testing.assert_array_equal(run(images.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)), expected(images))
        assert len(fakes.shapes) == 2 * -(-count // batch.most)
        assert all(batch.least <= shape[0] <= batch.most for shape in fakes.shapes)


def test_threads_take_turns(fakes, onnx_source, tmp_path):
    run = tensorrt_backend.load(read_package(built(onnx_source, tmp_path / "trt", Span(1, 1, 4))), None)
    batches = [random_images(1 + seed % 7, seed) for seed in range(80)]
    with ThreadPoolExecutor(8) as pool:
        for images, logits in zip(batches, pool.map(run, batches), strict=True):
            np.testing.assert_array_equal(logits, expected(images))


@pytest.mark.slow
def test_memory_is_freed_with_the_engine(fakes, onnx_source, tmp_path):
    package = read_package(built(onnx_source, tmp_path / "trt"))
    gc.collect()
    assert fakes.alive == {}
    run = tensorrt_backend.load(package, None)
    run(random_images(2))
    assert len(fakes.alive) == 3  # a stream, the input and the output
    del run
    gc.collect()
    assert fakes.alive == {}


@pytest.mark.slow
def test_a_full_gpu_is_one_line_and_leaves_nothing_behind(fakes, onnx_source, tmp_path):
    package = read_package(built(onnx_source, tmp_path / "trt"))
    gc.collect()
    fakes.memory = 4 * 8 * 2 * 4 * 6  # bytes: enough for 8 images of output, not of input
    with pytest.raises(InputError, match=r"engine.plan cannot be loaded: CUDA: cudaErrorMemoryAllocation$"):
        tensorrt_backend.load(package, None)
    gc.collect()
    assert fakes.alive == {}


def test_what_does_not_fit_the_engine_is_refused(fakes, onnx_source, tmp_path):
    folder = built(onnx_source, tmp_path / "trt", Span(1, 1, 4))

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
def test_engines_of_others_must_have_our_ports(fakes, onnx_source, tmp_path, changes, fault):
    folder = built(onnx_source, tmp_path / "trt")
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
