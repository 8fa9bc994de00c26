"""Configs to JSON and back."""

import json
from dataclasses import replace

import jaxtyping
import numpy as np
import pytest

from deeplab_jax.config import Experiment
from deeplab_jax.errors import InputError
from deeplab_jax.model_config import ModelConfig
from deeplab_jax.models import presets
from deeplab_jax.serialization import from_dict, load_json, save_json, to_dict


def test_round_trip(tiny_experiment, tmp_path):
    save_json(tiny_experiment, tmp_path / "config.json")
    assert load_json(Experiment, tmp_path / "config.json") == tiny_experiment


@pytest.mark.parametrize("config", [presets.smp_deeplabv3("resnet50", 21), presets.smp_deeplabv3plus("resnet18", 2)])
def test_presets_round_trip(config):
    assert from_dict(ModelConfig, json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": "many"}, "config.num_classes: must be of type int, not 'many'"),
        ({"num_classes": True}, "config.num_classes: must be of type int, not True"),
        ({"color": 1}, "config: 'color' unknown; the keys are num_classes"),
        ({"encoder": {"kind": "resnet", "bottleneck": True}}, "config.encoder: blocks, output_stride, dilation_rule"),
        ({"encoder": {"kind": "vgg"}}, "config.encoder: kind must be one of resnet, xception, mobilenet_v2, not 'vgg'"),
        ({"encoder": None}, "config.encoder: kind must be one of"),
        (
            {"aspp": {"kind": "aspp", "branches": "thick"}},
            r"config.aspp.branches: must be one of \['dense', 'separable', 'separable-norm-relu'\], not 'thick'",
        ),
        ({"aspp": {"kind": "aspp", "atrous_rates": 3}}, "config.aspp.atrous_rates: must be a list of"),
    ],
)
def test_faults_name_the_field(tiny_config, change, message):
    with pytest.raises(InputError, match=message):
        from_dict(ModelConfig, to_dict(tiny_config) | change)


def test_json_with_a_byte_order_mark(tiny_experiment, tmp_path):
    save_json(tiny_experiment, tmp_path / "a.json")
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "a.json").read_bytes())
    assert load_json(Experiment, tmp_path / "a.json") == tiny_experiment


def test_json_that_is_none(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(InputError, match=r"a\.json is not a readable JSON file"):
        load_json(ModelConfig, tmp_path / "a.json")
    with pytest.raises(InputError, match=r"b\.json is missing"):
        load_json(ModelConfig, tmp_path / "b.json")


@pytest.fixture
def as_outside_of_tests(monkeypatch):
    """Without run-time checks of annotations."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def part(name, **fields):
    return lambda experiment: {name: replace(getattr(experiment, name), **fields)}


UNFIT = {
    r"model.encoder.in_channels=4 must be 3: training reads every image as three channels": lambda experiment: {
        "model": replace(experiment.model, encoder=replace(experiment.model.encoder, in_channels=4))
    },
    r"preprocess.color_mode must be rgb": part("preprocess", color_mode="gray"),
    r"preprocess.mean: must be a list of 3 values, not \[0.5\]": part("preprocess", mean=(0.5,)),
    r"preprocess.size: must be a list of 2 values": part("preprocess", size=(48, 48, 3)),
    r"preprocess.resize_mode: must be one of .*, not 'fit'": part("preprocess", resize_mode="fit"),
    r"augment.crop=\(32, 15\) must be at least 16, the output stride": part("augment", crop=(32, 15)),
    r"preprocess.mean=\(123.0, 116.0, 103.0\) .* must be those of images in 0..1; divide them by 255": part(
        "preprocess", mean=(123.0, 116.0, 103.0), std=(58.0, 57.0, 57.0)
    ),
    r"preprocess.mean=.* and std=\(58.0, 57.0, 57.0\) must be": part("preprocess", std=(58.0, 57.0, 57.0)),
    r"augment.crop: must be a list of 2 values": part("augment", crop=(32, 32, 3)),
    r"optim.optimizer: must be one of .*, not 'lion'": part("optim", optimizer="lion"),
    r"optim.schedule: must be one of .*, not 'step'": part("optim", schedule="step"),
    r"train.precision: must be one of .*, not 'float16'": part("train", precision="float16"),
    r"train.batch_size: must be of type int, not 4.0": part("train", batch_size=4.0),
    r"train.steps: must be of type int, not 1.5": part("train", steps=1.5),
    r"seed=1180591620717411303424 must be 0 to below 2\^32": part("train", seed=2**70),
    r"init.package: must be of type Path": part("init", package=3),
}


@pytest.mark.parametrize("message", UNFIT)
def test_what_does_not_fit_together_is_one_line_when_it_is_put_together(tiny_experiment, as_outside_of_tests, message):
    """Python checks no types: most of these trained something else, or ended in a traceback out of XLA."""
    with pytest.raises(InputError, match=message):
        replace(tiny_experiment, **UNFIT[message](tiny_experiment))


def test_lists_and_texts_in_an_experiment_become_what_they_stand_for(tiny_experiment, as_outside_of_tests):
    data = replace(tiny_experiment.data, root=str(tiny_experiment.data.root))
    preprocess = replace(tiny_experiment.preprocess, size=[48, 48])
    optim = replace(tiny_experiment.optim, lr=np.float64(0.05))
    assert replace(tiny_experiment, data=data, preprocess=preprocess, optim=optim) == tiny_experiment
