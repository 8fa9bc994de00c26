"""Configs to JSON and back."""

import json

import pytest

from deeplab_jax.architecture import ModelConfig
from deeplab_jax.config import Experiment, from_dict, load_json, save_json, to_dict
from deeplab_jax.errors import InputError
from deeplab_jax.models import presets


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
        ({"colour": 1}, "config: 'colour' unknown; the keys are num_classes"),
        ({"encoder": {"kind": "resnet", "bottleneck": True}}, "config.encoder: blocks, output_stride, dilation_rule"),
        ({"encoder": {"kind": "vgg"}}, "config.encoder: kind must be one of resnet, xception, mobilenet_v2, not 'vgg'"),
        ({"encoder": None}, "config.encoder: kind must be one of"),
        (
            {"aspp": {"kind": "aspp", "branches": "thick"}},
            r"config.aspp.branches: must be one of \['dense', 'separable', 'separable-norm-relu'\], not 'thick'",
        ),
        ({"aspp": {"kind": "aspp", "rates": 3}}, "config.aspp.rates: must be a list of"),
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
