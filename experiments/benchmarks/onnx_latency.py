"""Latency of our ONNX graphs beside segmentation_models_pytorch's own `torch.onnx.export` of the same weights.

    pip install -e '.[onnx,port]' onnxscript
    python experiments/benchmarks/onnx_latency.py [--encoders resnet50 tu-xception65] [--size 512] [--turns 15]

DeepLabV3+ at output stride 16, 21 classes, one picture, ONNX Runtime on two CPU threads. The two sessions take turns in
one process; the ratio is that of their medians.
"""

import io
import statistics
import time
from typing import Annotated, Any

import numpy as np
import onnxruntime
import torch
import tyro
from tyro.conf import arg

from converters import smp
from converters.onnx_sizes import fix_size
from converters.onnx_trace import finish, trace
from deeplab_jax.models import presets

THREADS = 2


def main(
    encoders: tuple[str, ...] = ("resnet50", "tu-xception65"),
    size: int = 512,
    turns: Annotated[int, arg(help="timed runs of each")] = 15,
) -> None:
    print(
        f"onnxruntime {onnxruntime.__version__}, torch {torch.__version__}, {THREADS} threads, {size}x{size}, batch 1"
    )
    print("| encoder | smp's export s | ours s | ratio | largest difference |\n|---|---|---|---|---|")
    for encoder in encoders:
        theirs, ours = sessions(encoder, size)
        image = np.random.default_rng(0).normal(size=(1, 3, size, size)).astype(np.float32)
        expected, found = run(theirs, image), run(ours, image)
        difference = np.abs(found - expected).max() / np.abs(expected).max()
        run(theirs, image), run(ours, image)
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(turns):
            for session, seconds in zip((theirs, ours), times, strict=True):
                start = time.perf_counter()
                run(session, image)
                seconds.append(time.perf_counter() - start)
        slow, fast = (statistics.median(seconds) for seconds in times)
        print(f"| {encoder} | {slow:.4f} | {fast:.4f} | {fast / slow:.3f} | {difference:.1e} |", flush=True)


def sessions(encoder: str, size: int) -> tuple[Any, Any]:
    import segmentation_models_pytorch

    torch.manual_seed(0)
    model = segmentation_models_pytorch.DeepLabV3Plus(encoder, encoder_weights=None, classes=21).eval()
    buffer = io.BytesIO()
    torch.onnx.export(model, (torch.zeros(1, 3, size, size),), buffer, dynamo=False)
    config = presets.smp_deeplabv3plus(encoder=encoder, classes=21)
    graph = finish(fix_size(trace(smp.from_state_dict(model.state_dict(), config)), (size, size)), {})
    return open_session(buffer.getvalue()), open_session(graph.SerializeToString())


def open_session(graph: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def run(session: Any, image: np.ndarray) -> np.ndarray:
    return session.run(None, {session.get_inputs()[0].name: image})[0]


if __name__ == "__main__":
    tyro.cli(main)
