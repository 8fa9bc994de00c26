"""Packages, AutoModel and ONNX, through the calls that users make."""

import json
import shutil
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import onnx
import onnxruntime
import pytest

from converters.export.onnx_graph.onnx_package import export
from deeplab_jax import AutoModel
from deeplab_jax.errors import InputError
from deeplab_jax.image.resize import Placement
from deeplab_jax.inference.auto_model import SegmentationModel
from deeplab_jax.inference.backends import jax_backend
from deeplab_jax.inference.postprocess import Rule, postprocess
from deeplab_jax.package import jax_weights
from deeplab_jax.package.folder import read_package
from helpers.fixtures import random_images


def test_the_documented_snippets_run(package):
    model = AutoModel.from_pretrained(str(package))
    image = random_images((60, 80))[0]

    results = model(image)
    segmentation_map = results[0].segmentation_map.cpu().numpy()
    confidence = results[0].confidence.cpu().numpy()
    assert segmentation_map.shape == confidence.shape == (60, 80)
    assert segmentation_map.dtype == np.int64
    assert confidence.dtype == np.float32
    assert type(segmentation_map) is np.ndarray
    assert results[0].image_metadata is None

    colors = np.random.default_rng(0).integers(0, 255, (len(model.class_names), 3), np.uint8)
    assert colors[results[0].segmentation_map].shape == (60, 80, 3)
    for class_id in np.unique(segmentation_map):
        assert isinstance(model.class_names[class_id], str)

    sizes = [(60, 80), (1, 1), (300, 20), (49, 65), (97, 161), (20, 300), (64, 64), (33, 47), (480, 640), (7, 5)]
    results = model(random_images(*sizes))
    assert [result.segmentation_map.shape for result in results] == sizes
    assert model.infer(image)[0].segmentation_map.shape == (60, 80)
    assert model([]) == []


def test_a_batch_gives_what_single_images_give(package):
    model = AutoModel.from_pretrained(package)
    images = random_images((60, 80), (33, 47), (64, 64))
    for image, result in zip(images, model(images, confidence=0.0), strict=True):
        alone = model(image, confidence=0.0)[0]
        np.testing.assert_allclose(result.confidence, alone.confidence, atol=1e-5)
        assert (result.segmentation_map == alone.segmentation_map).mean() > 0.9999


def test_both_engines_agree(tiny_package, onnx_package):
    images = random_images((60, 80), (97, 161), (49, 65))
    results = [AutoModel.from_pretrained(p, device="cpu")(images, confidence=0.0) for p in (tiny_package, onnx_package)]
    for own, other in zip(*results, strict=True):
        # The logits reach 40 and differ by 1.4e-6 of that; a probability moves by no more than a logit does.
        np.testing.assert_allclose(own.confidence, other.confidence, atol=5e-5)
        assert (own.segmentation_map == other.segmentation_map).mean() > 0.9999


def test_the_threshold_sends_pixels_to_the_background(package):
    model, image = AutoModel.from_pretrained(package), random_images((60, 80))[0]
    free = model(image, confidence=0.0)[0]
    threshold = float(np.median(free.confidence))
    strict = model(image, confidence=threshold)[0]
    below = free.confidence < threshold
    assert 0 < below.mean() < 1
    np.testing.assert_array_equal(strict.segmentation_map, np.where(below, 0, free.segmentation_map))
    np.testing.assert_array_equal(strict.confidence, np.where(below, 0, free.confidence))


def reference_postprocess(logits, placement, input_size, image_size, names, threshold):
    """The shared inference API's steps, in PyTorch."""
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchvision.transforms.functional")
    background = [name.lower() for name in names].index("background")
    rows, columns = logits.shape[1] / input_size[0], logits.shape[2] / input_size[1]
    top, left = round(rows * placement.top), round(columns * placement.left)
    bottom = round(rows * (input_size[0] - placement.top - placement.height))
    right = round(columns * (input_size[1] - placement.left - placement.width))
    planes = torch.from_numpy(logits)[:, top : logits.shape[1] - bottom, left : logits.shape[2] - right]
    if tuple(planes.shape[1:]) != image_size:
        planes = functional.resize(planes, list(image_size), functional.InterpolationMode.BILINEAR)
    if len(planes) == 1:
        confidence = planes[0].sigmoid()
        ids = torch.zeros_like(confidence, dtype=torch.long)
    else:
        confidence, ids = torch.softmax(planes, 0).max(0)
    if len(names) == len(planes) + 1:
        ids = torch.tensor([i for i in range(len(names)) if i != background])[ids]
    below = confidence < threshold
    ids[below], confidence[below] = background, 0
    return ids.numpy(), confidence.numpy()


@pytest.mark.parametrize("names", [("background", "a", "b"), ("a", "Background", "b", "c"), ("background", "a")])
@pytest.mark.parametrize("inserted", [True, False])
@pytest.mark.parametrize("image_size", [(40, 56), (90, 70), (11, 30), (13, 100)])
@pytest.mark.parametrize("coarseness", [1, 4])
def test_postprocessing_equals_the_shared_api(names, inserted, image_size, coarseness):
    input_size, placement = (40, 56), Placement(4, 8, 30, 41)
    shape = (len(names) - inserted, input_size[0] // coarseness, input_size[1] // coarseness)
    logits = np.random.default_rng(0).normal(size=shape).astype(np.float32) * 2
    expected_ids, expected = reference_postprocess(logits, placement, input_size, image_size, names, 0.45)
    background = [name.lower() for name in names].index("background")
    result = postprocess(logits, placement, input_size, image_size, Rule(len(names), background, 0.45))
    same = result.segmentation_map == expected_ids
    # Interpolation rounds differently, so a pixel at the threshold or between two classes may fall either way.
    assert same.mean() > 0.995
    np.testing.assert_allclose(result.confidence[same], expected[same], atol=1e-4)


def test_an_empty_image_is_refused(package):
    with pytest.raises(InputError, match="has no pixels"):
        AutoModel.from_pretrained(package)(np.zeros((0, 5, 3), np.uint8))


def test_onnx_graph(tiny_package, onnx_package):
    """Equal to JAX at batch 1 and 3; readable by ONNX Runtime 1.22; batch symbolic, NCHW float32 in and out."""
    graph = onnx.load(onnx_package / "weights.onnx")
    assert graph.ir_version <= 10
    assert max(entry.version for entry in graph.opset_import) <= 22
    session = onnxruntime.InferenceSession(onnx_package / "weights.onnx", providers=["CPUExecutionProvider"])
    (images,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (images.type, images.shape) == ("tensor(float)", ["batch", 3, 49, 65])
    assert (logits.type, logits.shape) == ("tensor(float)", ["batch", 5, 49, 65])
    model = jax_weights.load_model(tiny_package)
    for batch in (1, 3):
        x = np.random.default_rng(batch).normal(size=(batch, 49, 65, 3)).astype(np.float32)
        expected = np.asarray(jax.jit(model.__call__)(x)).transpose(0, 3, 1, 2)
        actual = session.run(None, {images.name: x.transpose(0, 3, 1, 2)})[0]
        # Float32 sums in another order.
        assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()


def test_export_refuses_what_is_no_jax_package(onnx_package, tiny_package, tmp_path):
    with pytest.raises(InputError, match="is a package for onnx; export starts from a JAX package"):
        export(onnx_package, tmp_path / "out")
    with pytest.raises(InputError, match="exists; remove it or choose another --out"):
        export(tiny_package, tiny_package)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("")
    with pytest.raises(InputError, match="thesis exists; remove it or choose another --out"):
        export(tiny_package, tmp_path / "thesis")


def test_a_static_batch_is_filled_up(onnx_package, tmp_path):
    copy = shutil.copytree(onnx_package, tmp_path / "copy")
    graph = onnx.load(copy / "weights.onnx")
    for node in (*graph.graph.input, *graph.graph.output):
        node.type.tensor_type.shape.dim[0].dim_value = 4
    del graph.graph.value_info[:]
    onnx.save(graph, copy / "weights.onnx")
    config = json.loads((copy / "inference_config.json").read_text())
    config["forward_pass"] = {"static_batch_size": 4, "max_dynamic_batch_size": None}
    (copy / "inference_config.json").write_text(json.dumps(config))
    images = random_images(*[(49, 65)] * 6)
    actual = AutoModel.from_pretrained(copy)(images)
    for own, other in zip(actual, AutoModel.from_pretrained(onnx_package)(images), strict=True):
        np.testing.assert_allclose(own.confidence, other.confidence, atol=1e-5)


@pytest.mark.parametrize("confidence", [-0.1, 7.0, float("nan")])
def test_confidence_is_a_probability(package, confidence):
    with pytest.raises(InputError, match="must be a probability"):
        AutoModel.from_pretrained(package)(random_images((8, 8)), confidence=confidence)


def test_warming_up_runs_the_network_on_that_many_images(tiny_package):
    shapes = []

    def backend(images):
        shapes.append(images.shape)
        return np.zeros((len(images), 5, 49, 65), np.float32)

    SegmentationModel(read_package(tiny_package), backend).warm_up(3)
    assert shapes == [(3, 3, 49, 65)]


def test_compiled_programs_are_kept_where_the_user_wants_them(tmp_path, monkeypatch):
    before = jax.config.jax_compilation_cache_dir
    try:
        jax_backend.keep_compilations()
        assert jax.config.jax_compilation_cache_dir == before is not None
        jax.config.update("jax_compilation_cache_dir", None)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        jax_backend.keep_compilations()
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "deeplab_jax")
        jax.config.update("jax_compilation_cache_dir", None)
        (tmp_path / "no-folder").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no-folder"))
        jax_backend.keep_compilations()
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_threads_do_not_disturb_each_other(package):
    model, images = AutoModel.from_pretrained(package), random_images((60, 80), (33, 47), (64, 64))
    expected = [model(image)[0] for image in images]
    with ThreadPoolExecutor(8) as pool:
        for i, result in enumerate(pool.map(lambda i: model(images[i % 3])[0], range(24))):
            np.testing.assert_array_equal(result.segmentation_map, expected[i % 3].segmentation_map)
            np.testing.assert_allclose(result.confidence, expected[i % 3].confidence, atol=1e-6)


def test_onnx_needs_neither_jax_nor_anything_else(onnx_package, tiny_package):
    """A production image carries numpy, OpenCV and ONNX Runtime: nothing more may be imported."""
    program = f"""
        import sys

        ABSENT = "jax jaxlib flax optax orbax grain jaxtyping PIL tyro rich safetensors tensorboardX matplotlib"

        class Refuse:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in ABSENT.split():
                    raise ImportError("not in production: " + name)

        sys.meta_path.insert(0, Refuse())
        import numpy as np
        from deeplab_jax import AutoModel, InputError
        model = AutoModel.from_pretrained({str(onnx_package)!r}, device="cpu")
        result = model(np.zeros((20, 30, 3), np.uint8))[0]
        assert result.segmentation_map.shape == (20, 30)
        assert not {{"jax", "flax"}} & set(sys.modules)
        try:
            AutoModel.from_pretrained({str(tiny_package)!r})
        except InputError as error:
            assert "is run by JAX" in str(error)
            print("done")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("done", "")
