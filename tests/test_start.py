"""What a run starts from."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import nnx

from conftest import blank_model, randomise_statistics
from deeplab_jax.architecture import AuxHeadConfig
from deeplab_jax.config import PreprocessConfig, StartConfig
from deeplab_jax.data.classes import Classes, default_palette
from deeplab_jax.data.generate import CLASS_NAMES
from deeplab_jax.errors import InputError
from deeplab_jax.inference.backends import jax as jax_backend
from deeplab_jax.models import build_model
from deeplab_jax.models.weights import to_arrays
from deeplab_jax.train.loop import train
from deeplab_jax.train.start import continue_training, normalisation_differs, transfer_learning


@pytest.fixture(scope="module")
def source(tiny_package):
    return to_arrays(jax_backend.load_model(tiny_package))


def test_transfer_keeps_all_but_the_last_layer(tiny_config, tiny_package, source):
    model = blank_model(replace(tiny_config, num_classes=7))
    left = transfer_learning(model, tiny_package)
    assert left == ["classifier.bias", "classifier.kernel"]
    for name, array in to_arrays(model).items():
        assert np.array_equal(array, source[name]) if name not in left else not array.any(), name


def test_transfer_to_the_same_classes_begins_the_last_layer_anew_too(tiny_config, tiny_package):
    model = blank_model(tiny_config)
    assert transfer_learning(model, tiny_package) == ["classifier.bias", "classifier.kernel"]
    assert not to_arrays(model)["classifier.kernel"].any()


def test_transfer_leaves_an_auxiliary_head_that_the_package_lacks(tiny_config, tiny_package):
    model = blank_model(replace(tiny_config, aux_head=AuxHeadConfig(channels=8)))
    left = transfer_learning(model, tiny_package)
    assert {name.split(".")[0] for name in left} == {"classifier", "aux_head"}


def test_transfer_between_other_architectures_is_refused(tiny_config, tiny_package, onnx_package):
    with pytest.raises(InputError, match=r"do not fit the model .* misshapen"):
        transfer_learning(
            blank_model(replace(tiny_config, encoder=replace(tiny_config.encoder, width=4))), tiny_package
        )
    with pytest.raises(InputError, match="is an onnx package; training starts from a JAX package"):
        transfer_learning(blank_model(tiny_config), onnx_package)


def test_continue_keeps_everything(tiny_config, tiny_package, source):
    model = blank_model(tiny_config)
    continue_training(model, tiny_package, CLASS_NAMES)
    assert all(np.array_equal(array, source[name]) for name, array in to_arrays(model).items())


def test_continue_demands_the_same_classes_in_the_same_order(tiny_config, tiny_package):
    swapped = (CLASS_NAMES[0], CLASS_NAMES[2], CLASS_NAMES[1], *CLASS_NAMES[3:])
    message = f"class 1 is {CLASS_NAMES[2]!r} in the data set but {CLASS_NAMES[1]!r} in .*start.mode=transfer_learning"
    with pytest.raises(InputError, match=message):
        continue_training(blank_model(tiny_config), tiny_package, swapped)
    count = len(CLASS_NAMES)
    with pytest.raises(InputError, match=f"the data set has {count - 1} classes but .* has {count}"):
        continue_training(blank_model(tiny_config), tiny_package, CLASS_NAMES[:-1])


def test_continue_where_the_package_was_given_a_background(tiny_config, tmp_path):
    config = replace(tiny_config, num_classes=2)
    model = blank_model(config)
    names = ("roof", "door")
    jax_backend.save(tmp_path / "p", model, Classes(names, default_palette(2)), PreprocessConfig(size=(48, 48)))
    continue_training(model, tmp_path / "p", names)
    with pytest.raises(InputError, match="class 0 is 'background' in the data set but 'roof'"):
        continue_training(model, tmp_path / "p", ("background", "roof"))


def test_another_normalisation_is_named(tiny_package):
    assert normalisation_differs(tiny_package, PreprocessConfig()) == ""
    other = PreprocessConfig(mean=(0.5, 0.5, 0.5))
    assert "was trained with preprocess.mean=(0.485, 0.456, 0.406)" in normalisation_differs(tiny_package, other)


def test_a_run_from_a_package_and_its_auxiliary_head(tiny_experiment, tiny_config, tmp_path, capsys):
    config = replace(tiny_config, aux_head=AuxHeadConfig(channels=8))
    model = randomise_statistics(build_model(config, rngs=nnx.Rngs(1)))
    classes = Classes(CLASS_NAMES, default_palette(len(CLASS_NAMES)))
    jax_backend.save(tmp_path / "p", model, classes, tiny_experiment.preprocess)
    # At so small a rate one step leaves everything but the statistics where it was.
    schedule = replace(tiny_experiment.train, steps=1, learning_rate=1e-12, weight_decay=0.0)
    start = StartConfig(tmp_path / "p", "continue_training")
    train(replace(tiny_experiment, model=config, start=start, train=schedule), tmp_path / "run")
    assert f"starting from the weights of {tmp_path / 'p'}" in capsys.readouterr().out.replace("\n", "")
    before, after = to_arrays(model), to_arrays(jax_backend.load_model(tmp_path / "run" / "package"))
    for name in before:
        if not name.endswith((".mean", ".var")):
            np.testing.assert_allclose(after[name], before[name], atol=1e-6)
    moved = [name for name in before if not np.array_equal(before[name], after[name])]
    assert "aux_head.hidden.norm.mean" in moved  # so the head was run, and its loss with it
    images = np.zeros((1, 33, 33, 3), np.float32)
    logits, auxiliary = jax.eval_shape(model.with_auxiliary, images)
    assert logits.shape == auxiliary.shape == (1, 33, 33, len(CLASS_NAMES))
