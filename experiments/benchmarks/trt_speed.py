"""TensorRT engines of ONNX packages: how far from ONNX Runtime, and how long a batch takes. Needs an NVIDIA GPU.

    pip install -e '.[tensorrt]' && python experiments/benchmarks/trt_speed.py FLOAT32 FLOAT16 INT8

The arguments are ONNX packages, of one model in several precisions, say. A time is that of a call: images as float32
go to the GPU, logits come back. Runs of the packages alternate, so that all see the GPU at the same clock.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import tensorrt  # pyright: ignore[reportMissingImports]
from cuda.bindings import runtime as cuda  # pyright: ignore[reportMissingImports]

from converters.export.onnx_graph.onnx_package import class_ids
from converters.export.onnx_graph.session import open_session
from converters.export.tensorrt_engine.tensorrt_package import Profile, Span, export
from deeplab_jax.inference.backends import tensorrt_backend
from deeplab_jax.package.folder import read_package

BATCHES = (1, 8, 32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, nargs="+")
    parser.add_argument("--runs", type=int, default=50)
    options = parser.parse_args()
    gpu = cuda.cudaGetDeviceProperties(0)[1].name.decode()
    print(f"TensorRT {tensorrt.__version__}, {gpu}, medians of {options.runs} runs\n")
    columns = ["package", "build s", "engine MiB", "largest difference", "argmax equal"]
    columns += [f"ms at batch {batch}" for batch in BATCHES]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    with tempfile.TemporaryDirectory() as folder:
        built = [build(package, Path(folder, str(number))) for number, package in enumerate(options.packages)]
        times = [alternate([engine for _, engine in built], batch, options.runs) for batch in BATCHES]
        for (cells, _), seconds in zip(built, zip(*times, strict=True), strict=True):
            print(f"| {' | '.join([*cells, *(f'{1000 * median:.2f}' for median in seconds)])} |")


def build(source: Path, out: Path):
    """The first cells of a row, and the engine with the size of its images."""
    start = time.perf_counter()
    worst = export(source, out, Profile(Span(1, 8, max(BATCHES))), lambda *_: None)
    seconds = time.perf_counter() - start
    package = read_package(out)
    run, size = tensorrt_backend.load(package, None), package.preprocess.size
    images = random_inputs(4, size)
    session = open_session(onnx.load(source / "weights.onnx"), exact=True)
    expected = np.asarray(session.run(None, {session.get_inputs()[0].name: images})[0])
    equal = (class_ids(run(images)) == class_ids(expected)).mean()
    mebibytes = (out / "engine.plan").stat().st_size / 2**20
    return [source.name, f"{seconds:.0f}", f"{mebibytes:.1f}", f"{worst:.1e}", f"{equal:.2%}"], (run, size)


def alternate(engines, batch: int, runs: int) -> list[float]:
    """Median seconds of a call of each engine."""
    images = [random_inputs(batch, size) for _, size in engines]
    seconds = [[] for _ in engines]
    for turn in range(-3, runs):  # the first three warm up
        for (run, _), pixels, times in zip(engines, images, seconds, strict=True):
            start = time.perf_counter()
            run(pixels)
            if turn >= 0:
                times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in seconds]


def random_inputs(count: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, 3, *size)).astype(np.float32)


if __name__ == "__main__":
    main()
