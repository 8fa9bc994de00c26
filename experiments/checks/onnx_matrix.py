"""Every model of the family as an ONNX graph in ONNX Runtime beside JAX.

    pip install -e '.[onnx]' && python experiments/checks/onnx_matrix.py

Random weights and random BatchNorm statistics; float32. The graph for any size (`--dynamic-size`) and the one that is
fixed to a size, each at batch 1 and 3 and 97x161. Exits with 1 if a case differs by more than 1e-4 of the largest
logit, agrees on the class of fewer than 99.99 % of the pixels, has an operator that none should have, or not as many
convolutions as the model. Every graph has passed onnx.checker's full check.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from itertools import product

import jax
import numpy as np
from flax import nnx

from converters.export.onnx_graph.onnx_package import ODD_SIZE, TOLERANCE, open_session, run
from converters.export.onnx_graph.sizes import fix_size
from converters.export.onnx_graph.trace import finish, trace
from deeplab_jax.model_config import ModelConfig
from deeplab_jax.models import DeepLab, build_model, presets
from deeplab_jax.models.layers import Conv
from deeplab_jax.models.state import abstract_model, fill, flat_state

CLASSES = 21
AGREEMENT = 0.9999
UNWANTED = {"Transpose", "Expand", "Identity", "Slice", "Einsum", "Gather", "Reshape"}


def main() -> None:
    print("| library | model | nodes | Conv | any size | one size | argmax |\n|---|---|---|---|---|---|---|")
    cases = misfits = 0
    for library, name, config in models():
        cases += 1
        misfits += not fits(library, name, config)
        jax.clear_caches()
    print(f"{cases} cases, {misfits} beyond tolerance")
    sys.exit(bool(misfits))


def models() -> Iterator[tuple[str, str, ModelConfig]]:
    for encoder, stride in product(presets.SMP_ENCODERS, (8, 16)):
        yield "smp", f"{encoder} V3 OS {stride}", presets.smp_deeplabv3(encoder, CLASSES, stride)
        yield "smp", f"{encoder} V3+ OS {stride}", presets.smp_deeplabv3plus(encoder, CLASSES, stride)
    for backbone in ("resnet50", "resnet101"):
        yield "torchvision", f"{backbone} V3 OS 8", presets.torchvision_deeplabv3(backbone, CLASSES)
    for encoder, stride, decoder in product(presets.TF_ENCODERS, (8, 16), (False, True)):
        name = f"{encoder} {'V3+' if decoder else 'V3'} OS {stride}"
        yield "research/deeplab", name, presets.tf_deeplab(encoder, CLASSES, stride, decoder=decoder)
    bare = presets.tf_deeplab("mobilenet_v2", CLASSES, 16, atrous_rates=(), decoder=False)
    yield "research/deeplab", "mobilenet_v2 V3 OS 16, as published", bare
    cell = presets.tf_deeplab("xception_71", CLASSES, 8, dense_prediction_cell=True)
    yield "research/deeplab", "xception_71 V3+ OS 8, dense prediction cell", cell


def fits(library: str, name: str, config: ModelConfig) -> bool:
    model = randomize(build_model(config, rngs=nnx.Rngs(0)))
    images = np.random.default_rng(0).normal(size=(3, *ODD_SIZE, 3)).astype(np.float32)
    expected = np.asarray(nnx.jit(lambda model, x: model(x))(model, images)).transpose(0, 3, 1, 2)
    general = trace(model)
    differences, agreements = [], []
    for graph in (finish(general, {}), finish(fix_size(general, ODD_SIZE), {})):
        session = open_session(graph)
        actual = [run(session, images[:batch]) for batch in (1, 3)]
        largest = np.abs(expected).max()
        differences.append(max(float(np.abs(y - expected[: len(y)]).max() / largest) for y in actual))
        agreements.append(min(float((y.argmax(1) == expected[: len(y)].argmax(1)).mean()) for y in actual))
    census = Counter(node.op_type for node in graph.graph.node)
    convolutions = sum(
        isinstance(module, Conv) and path[:1] != ("aux_head",) for path, module in nnx.iter_modules(model)
    )
    figures = " | ".join(f"{difference:.1e}" for difference in differences)
    agreement = f"{100 * min(agreements):.3f} %"
    print(f"| {library} | {name} | {census.total()} | {census['Conv']} | {figures} | {agreement} |", flush=True)
    tidy = not UNWANTED & {*census} and census["Conv"] == convolutions
    return tidy and max(differences) <= TOLERANCE and min(agreements) >= AGREEMENT


def randomize(model: DeepLab) -> DeepLab:
    """In evaluation mode, with BatchNorms that are not the identity."""
    rng = np.random.default_rng(0)
    values = {path: np.asarray(leaf[...]) for path, leaf in flat_state(model).items()}
    for path, array in values.items():
        if path[-1] in ("mean", "bias"):
            values[path] = rng.normal(0, 0.1, array.shape).astype(np.float32)
        elif path[-1] in ("var", "scale"):
            values[path] = rng.uniform(0.5, 1.5, array.shape).astype(np.float32)
    return fill(abstract_model(model.config), values)


if __name__ == "__main__":
    main()
