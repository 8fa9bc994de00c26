"""What an ONNX package holds, and how it is written."""

import json
import resource

import onnx
import pytest

from converters.export.onnx_graph import onnx_package as converter
from deeplab_jax import AutoModel
from deeplab_jax.errors import InputError
from deeplab_jax.package.folder import read_package


def test_the_file_says_what_it_is(onnx_package):
    graph = onnx.load(onnx_package / "weights.onnx")
    metadata = {entry.key: entry.value for entry in graph.metadata_props}
    assert json.loads(metadata["class_names"]) == AutoModel.from_pretrained(onnx_package).class_names
    assert json.loads(metadata["mean"]) == [0.485, 0.456, 0.406]
    assert metadata["input"] == "RGB, 0 to 1, minus mean, by std; letterbox to 49x65"
    assert (graph.producer_name, graph.ir_version, graph.opset_import[0].version) == ("deeplab_jax", 10, 18)


def test_auxiliary_heads_are_left_out(tiny_package, onnx_package):
    graph = onnx.load(onnx_package / "weights.onnx")
    assert converter.read_source(tiny_package).model.aux_head
    assert not [node.name for node in graph.graph.node if "aux" in node.name]


def test_a_full_disk_is_one_line(onnx_package, tiny_package, tmp_path):
    graph = onnx.load(onnx_package / "weights.onnx")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        with pytest.raises(InputError, match=r"out: the package cannot be written .*File too large"):
            converter.write(tmp_path / "out", graph, read_package(tiny_package), False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not [*tmp_path.iterdir()]
