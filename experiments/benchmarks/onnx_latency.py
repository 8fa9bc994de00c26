"""Latency of our ONNX graphs beside segmentation_models_pytorch's own `torch.onnx.export` of the same weights.

    pip install -e '.[onnx,port]' onnxscript
    python experiments/benchmarks/onnx_latency.py [--encoders resnet50 tu-xception65] [--size 512] [--turns 15]

DeepLabV3+ at output stride 16, 21 classes, one image, ONNX Runtime on two CPU threads. The sessions take turns in one
process, in a new order each time; the ratios are those of their medians. Each graph has two sessions: those of one
graph may differ by half a per cent.
"""

import statistics
import tempfile
import time
from typing import Annotated, Any

import numpy as np
import onnx
import onnxruntime
import torch
import tyro
from tyro.conf import arg

from converters import smp
from converters.export.onnx_graph.precision import to_int8
from converters.export.onnx_graph.sizes import fix_size
from converters.export.onnx_graph.trace import finish, trace
from deeplab_jax.models import presets

THREADS = 2
SESSIONS = 2  # of each graph


def main(
    encoders: tuple[str, ...] = ("resnet50", "tu-xception65"),
    size: int = 512,
    turns: Annotated[int, arg(help="timed runs of each session")] = 15,
) -> None:
    versions = f"onnxruntime {onnxruntime.__version__}, torch {torch.__version__}"
    print(f"{versions}, {THREADS} threads, {size}x{size}, batch 1, median of {turns} s")
    print("| encoder | TorchScript's exporter | default exporter | ours | ratio to each | int8 | ratio to ours |")
    print("|---|---|---|---|---|---|---|")
    image = np.random.default_rng(0).normal(size=(1, 3, size, size)).astype(np.float32)
    shuffler = np.random.default_rng(0)
    for encoder in encoders:
        files = graphs(encoder, size, image)
        engines = [open_session(file) for _ in range(SESSIONS) for file in files]
        logits = [run(session, image) for session in engines]
        for other in logits[1:3]:
            assert np.abs(other - logits[0]).max() <= 1e-4 * np.abs(logits[0]).max()
        times = [[] for _ in files]
        for turn in range(turns + 1):  # the first is not counted
            for engine in shuffler.permutation(len(engines)):
                time.sleep(0.05)  # the last session's threads spin for a while
                start = time.perf_counter()
                run(engines[engine], image)
                times[engine % len(files)] += [time.perf_counter() - start] if turn else []
        script, default, own, int8 = map(statistics.median, times)
        ratios = f"{own / script:.3f}, {own / default:.3f}"
        print(f"| {encoder} | {script:.4f} | {default:.4f} | {own:.4f} | {ratios} | {int8:.4f} | {int8 / own:.3f} |")


def graphs(encoder: str, size: int, image: np.ndarray) -> list[bytes]:
    """smp's two exports, ours, and ours in int8."""
    import segmentation_models_pytorch

    torch.manual_seed(0)
    model = segmentation_models_pytorch.DeepLabV3Plus(encoder, encoder_weights=None, classes=21).eval()
    with tempfile.TemporaryDirectory() as scratch:
        paths = []
        for dynamo in (False, True):
            paths.append(f"{scratch}/{dynamo}.onnx")
            torch.onnx.export(model, (torch.zeros(1, 3, size, size),), paths[-1], dynamo=dynamo, verbose=False)
        other = [onnx.load(path) for path in paths]
    config = presets.smp_deeplabv3plus(encoder=encoder, classes=21)
    graph = finish(fix_size(trace(smp.from_state_dict(model.state_dict(), config)), (size, size)), {})
    return [each.SerializeToString() for each in (*other, graph, to_int8(graph, [image]))]


def open_session(graph: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def run(session: Any, image: np.ndarray) -> np.ndarray:
    return session.run(None, {session.get_inputs()[0].name: image})[0]


if __name__ == "__main__":
    tyro.cli(main)
