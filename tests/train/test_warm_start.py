"""What a run starts from."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from deeplab_jax.classes import Classes, default_palette
from deeplab_jax.config import InitConfig, PreprocessConfig
from deeplab_jax.data.generate import CLASS_NAMES
from deeplab_jax.errors import InputError
from deeplab_jax.model_config import ASPPConfig, DPCConfig
from deeplab_jax.models.state import to_arrays
from deeplab_jax.package import jax_weights
from deeplab_jax.train import loop
from deeplab_jax.train.loop import train
from deeplab_jax.train.sharding import make_shardings
from deeplab_jax.train.step import eval_model, init_from_package, init_state
from deeplab_jax.train.warm_start import continue_training, describe_init, init_warnings, load_init, transfer_learning
from helpers.fixtures import blank_model


@pytest.fixture(scope="module")
def source(tiny_package):
    return to_arrays(jax_weights.load_model(tiny_package))


LAST = ["aux_head.classifier.bias", "aux_head.classifier.kernel", "classifier.bias", "classifier.kernel"]


@pytest.mark.parametrize("classes", [1, 7, len(CLASS_NAMES)])
def test_transfer_keeps_all_but_the_last_layer(tiny_config, tiny_package, source, classes):
    model = blank_model(replace(tiny_config, num_classes=classes))
    left = transfer_learning(model, tiny_package)
    assert sorted(left) == LAST
    for name, array in to_arrays(model).items():
        assert np.array_equal(array, source[name]) if name not in left else not array.any(), name


def test_transfer_leaves_an_auxiliary_head_that_only_one_has(tiny_config, tiny_package, tmp_path):
    without = replace(tiny_config, aux_head=None)
    assert sorted(transfer_learning(blank_model(without), tiny_package)) == LAST[2:]
    classes = Classes(CLASS_NAMES, default_palette(len(CLASS_NAMES)))
    jax_weights.save(tmp_path / "p", blank_model(without), classes, PreprocessConfig(size=(48, 48)))
    left = transfer_learning(blank_model(tiny_config), tmp_path / "p")
    assert {name.split(".")[0] for name in left} == {"classifier", "aux_head"}
    assert "aux_head.hidden.conv.kernel" in left
    wider = replace(tiny_config, aux_head=replace(tiny_config.aux_head, channels=9))
    assert "aux_head.hidden.conv.kernel" in transfer_learning(blank_model(wider), tiny_package)


def test_transfer_between_other_architectures_is_refused(tiny_config, tiny_package, onnx_package):
    with pytest.raises(InputError, match=r"do not fit the model .* misshapen"):
        transfer_learning(
            blank_model(replace(tiny_config, encoder=replace(tiny_config.encoder, width=4))), tiny_package
        )
    with pytest.raises(InputError, match="is a package for onnx; training starts from a JAX package"):
        transfer_learning(blank_model(tiny_config), onnx_package)


def test_continue_keeps_everything(tiny_config, tiny_package, source):
    model = blank_model(tiny_config)
    continue_training(model, tiny_package, CLASS_NAMES)
    assert all(np.array_equal(array, source[name]) for name, array in to_arrays(model).items())


def test_continue_demands_the_same_classes_in_the_same_order(tiny_config, tiny_package):
    swapped = (CLASS_NAMES[0], CLASS_NAMES[2], CLASS_NAMES[1], *CLASS_NAMES[3:])
    message = f"class 1 is {CLASS_NAMES[2]!r} in the data set but {CLASS_NAMES[1]!r} in .*init.mode=transfer_learning"
    with pytest.raises(InputError, match=message):
        continue_training(blank_model(tiny_config), tiny_package, swapped)
    count = len(CLASS_NAMES)
    with pytest.raises(InputError, match=f"the data set has {count - 1} classes but .* has {count}"):
        continue_training(blank_model(tiny_config), tiny_package, CLASS_NAMES[:-1])


def test_continue_where_the_package_was_given_a_background(tiny_config, tmp_path):
    config = replace(tiny_config, num_classes=2)
    model = blank_model(config)
    names = ("roof", "door")
    jax_weights.save(tmp_path / "p", model, Classes(names, default_palette(2)), PreprocessConfig(size=(48, 48)))
    continue_training(model, tmp_path / "p", names)
    with pytest.raises(InputError, match="class 0 is 'background' in the data set but 'roof'"):
        continue_training(model, tmp_path / "p", ("background", "roof"))


def test_continue_demands_the_same_architecture(tiny_config, tiny_package):
    other = replace(tiny_config, encoder=replace(tiny_config.encoder, epsilon=0.1))
    with pytest.raises(InputError, match=r"architectures differ: model.encoder.epsilon is 1e-05 in .* and 0.1 here"):
        continue_training(blank_model(other), tiny_package, CLASS_NAMES)
    with pytest.raises(InputError, match=r"give init\.package"):
        InitConfig(mode="continue_training")


def test_other_settings_than_the_weights_were_trained_with_are_named(tiny_config, tiny_package):
    start = InitConfig(tiny_package)
    assert init_warnings(start, tiny_config, PreprocessConfig()) == []
    other = replace(tiny_config, num_classes=9, aspp=replace(tiny_config.aspp, atrous_rates=(2, 3), dropout=0.3))
    normalization, rates = init_warnings(start, other, PreprocessConfig(mean=(0.5, 0.5, 0.5)))
    assert normalization == f"preprocess.mean is (0.485, 0.456, 0.406) in {tiny_package} and (0.5, 0.5, 0.5) here"
    assert rates == f"model.aspp.atrous_rates is [1, 2] in {tiny_package} and [2, 3] here"


OTHER_MODELS = {  # around the same encoder
    "DeepLabV3": {"decoder": None, "aux_head": None, "num_classes": 2},
    "another pyramid": {"aspp": DPCConfig((-1, 0), ((1, 2), (3, 1)), channels=8), "num_classes": 9},
    "another stride": {"aspp": ASPPConfig(atrous_rates=(), channels=8), "aux_head": None},
}


@pytest.mark.parametrize("other", OTHER_MODELS)
def test_the_encoder_alone_goes_into_any_model_and_comes_out_of_it(tiny_config, tiny_package, source, tmp_path, other):
    dilated = replace(tiny_config.encoder, output_stride=8, dilation_rule="after-strided-block", multi_grid=(2,))
    config = replace(tiny_config, encoder=dilated, **OTHER_MODELS[other])
    start, model = InitConfig(tiny_package, "encoder"), blank_model(config)
    left = load_init(model, start, ())
    for name, array in to_arrays(model).items():
        assert np.array_equal(array, source[name]) if name.startswith("encoder.") else not array.any(), name
    assert left == [name for name in to_arrays(model) if not name.startswith("encoder.")]
    stated = describe_init(start, left)
    counts = Counter(name.split(".")[0] for name in source)
    assert stated.startswith(f"starting from the encoder of {tiny_package}, whose aspp ({counts['aspp']} tensors)")
    assert f"aux_head ({counts['aux_head']} tensors)" in stated
    assert f"; at random: aspp ({sum(name.startswith('aspp.') for name in left)} tensors)" in stated
    assert init_warnings(start, config, PreprocessConfig()) == []

    classes = Classes(tuple("abcdefghi")[: config.num_classes], default_palette(config.num_classes))
    jax_weights.save(tmp_path / "p", model, classes, PreprocessConfig(size=(48, 48)))
    back = blank_model(tiny_config)
    load_init(back, InitConfig(tmp_path / "p", "encoder"), CLASS_NAMES)
    assert all(np.array_equal(a, source[n]) for n, a in to_arrays(back).items() if n.startswith("encoder."))
    with pytest.raises(InputError, match=r"do not fit .*; its encoder fits, which init\.mode=encoder takes alone"):
        transfer_learning(blank_model(tiny_config), tmp_path / "p")


def test_another_encoder_is_refused_by_all_modes(tiny_config, tiny_package):
    wider = blank_model(replace(tiny_config, encoder=replace(tiny_config.encoder, width=4)))
    for mode in ("encoder", "transfer_learning"):
        with pytest.raises(InputError, match=r"the weights do not fit .* misshapen") as error:
            load_init(wider, InitConfig(tiny_package, mode), ())
        assert "init.mode=encoder" not in str(error.value)
    other = replace(tiny_config, encoder=replace(tiny_config.encoder, epsilon=0.1, output_stride=8))
    (fact,) = init_warnings(InitConfig(tiny_package, "encoder"), other, PreprocessConfig())
    assert fact == f"model.encoder.epsilon is 1e-05 in {tiny_package} and 0.1 here"


def test_a_package_that_does_not_fit_is_refused_before_anything_is_compiled(tiny_experiment, tiny_package, tmp_path):
    def compile_nothing(*_):
        raise AssertionError("something was compiled")

    v3 = replace(tiny_experiment, model=replace(tiny_experiment.model, decoder=None))
    other = replace(tiny_experiment.model, encoder=replace(tiny_experiment.model.encoder, epsilon=0.1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "init_state", compile_nothing)
        with pytest.raises(InputError, match=r"do not fit .*; its encoder fits"):
            train(replace(v3, init=InitConfig(tiny_package)), tmp_path / "run")
        with pytest.raises(InputError, match="the architectures differ"):
            train(replace(v3, model=other, init=InitConfig(tiny_package, "continue_training")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_from_a_package(tiny_experiment, tiny_package, source, tmp_path, capsys):
    config = replace(tiny_experiment, init=InitConfig(tiny_package))
    shardings = make_shardings()
    graph, fresh = init_state(config, shardings)
    state, left = init_from_package(config, graph, fresh, CLASS_NAMES, shardings)
    begun, untouched = to_arrays(eval_model(graph, state)), to_arrays(eval_model(graph, fresh))
    assert sorted(left) == LAST
    for name, array in begun.items():
        assert np.array_equal(array, (untouched if name in left else source)[name]), name

    train(config, tmp_path / "run")
    stated = capsys.readouterr().out.replace("\n", "")
    assert f"starting from the weights of {tiny_package}" in stated
    assert "not its" in stated
    assert "warning" not in stated
    trained = to_arrays(jax_weights.load_model(tmp_path / "run" / "package"))
    assert not np.array_equal(trained["aux_head.hidden.conv.kernel"], begun["aux_head.hidden.conv.kernel"])
