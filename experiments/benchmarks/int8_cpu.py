"""What int8 packages cost with weights of fewer than 8 bits, or unsigned ones; and what 8 bits cost on another CPU.

    pip install -e '.[onnx]' && deeplab export PACKAGE --to onnx --out ONNX
    python experiments/benchmarks/int8_cpu.py ONNX --root VOC2012 --out GRAPHS
    qemu-x86_64-static -cpu Haswell $(which python) experiments/benchmarks/int8_cpu.py ONNX --root VOC2012 \\
        --out GRAPHS --count 8

The first run quantizes the float32 package in every way, on images of the training split, and compares the graphs
with float32 on those of the validation split. Seconds are CPU seconds of one thread for a network input, the least of
turns that alternate. A run that finds the graphs says on how many pixels the class is that of the first run: on a CPU
without VNNI, or in QEMU's emulation of one (from 7.2 on it knows AVX2), ONNX Runtime takes other kernels.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import numpy as np
import onnx
import onnxruntime
import tyro
from onnxruntime import quantization
from tyro.conf import Positional, arg

from deeplab_jax.data.dataset import Dataset
from deeplab_jax.data.formats import open_dataset
from deeplab_jax.evaluate.metrics import confusion_matrix, scores
from deeplab_jax.inference.auto_model import SegmentationModel
from deeplab_jax.package.folder import Package, read_package

UNSIGNED = {"weight_type": quantization.QuantType.QUInt8, "extra_options": {"WeightSymmetric": True}}
WAYS: dict[str, dict[str, Any]] = {  # what differs from ours in the arguments of the quantizer
    "8 bits": {"reduce_range": False},
    "8 bits, unsigned": {"reduce_range": False, **UNSIGNED},
    "7 bits": {"extra_options": {}},
    "7 bits, depthwise 8": {},  # ours
}
TURNS = 12


class Engine:
    """AutoModel with a graph on one thread, and the last logits."""

    def __init__(self, graph: Path, package: Package):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.model = SegmentationModel(package, self.keep)
        self.megabytes = graph.stat().st_size / 1e6
        self.input = self.logits = np.empty(0, np.float32)

    def run(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(self.session.run(None, {"images": images})[0])

    def keep(self, images: np.ndarray) -> np.ndarray:
        self.input, self.logits = images, self.run(images)
        return self.logits

    def segment(self, image: np.ndarray) -> np.ndarray:
        return self.model(image, confidence=0.0, input_color_format="rgb")[0].segmentation_map.astype(np.uint8)


def main(
    package: Positional[Path],
    root: Path,
    out: Path,
    format: str = "voc",
    count: Annotated[int | None, arg(help="images of the validation split, by default all")] = None,
) -> None:
    read, data = read_package(package), open_dataset(root, format, "val")
    number = min(count or len(data), len(data))
    samples = [i * len(data) // number for i in range(number)]
    files = {"float32": package / "weights.onnx"} if (first := not out.exists()) else {}
    if first:
        quantize(package, read, open_dataset(root, format, "train"), out)
    engines = {way: Engine(file, read) for way, file in (files | {way: out / f"{way}.onnx" for way in WAYS}).items()}
    print(f"onnxruntime {onnxruntime.__version__}, {number} images\n")
    (measure if first else compare)(engines, data, samples, out)


def quantize(source: Path, package: Package, calibration: Dataset, out: Path) -> None:
    """A graph a way."""
    from converters.export.export import Images, Options, network_inputs
    from converters.export.onnx_graph.precision import to_int8

    graph, options = onnx.load(source / "weights.onnx"), Options(calibration=Images(calibration))
    out.mkdir(parents=True)
    own = quantization.quantize_static
    for way, changes in WAYS.items():
        with mock.patch.object(quantization, "quantize_static", lambda *a, c=changes, **b: own(*a, **b | c)):
            onnx.save(to_int8(graph, network_inputs(package, options)), out / f"{way}.onnx")


def measure(engines: dict[str, Engine], data: Dataset, samples: list[int], out: Path) -> None:
    """Every graph beside float32; the maps are kept in `out`."""
    maps, off, largest = {way: [] for way in engines}, {way: [] for way in engines}, 0.0
    for sample in samples:
        for way, engine in engines.items():
            maps[way].append(engine.segment(data[sample].image))
            difference = np.abs(engine.logits - engines["float32"].logits)
            off[way].append((difference.max(), difference.mean()))
        largest = max(largest, float(np.abs(engines["float32"].logits).max()))
    seconds = alternate(engines)
    print("| weights | MB | mIoU | logits off at most | on average | class of float32 | s | / float32 |")
    print(f"|{'---|' * 8}")
    for way, engine in engines.items():
        worst, average = np.max(off[way], axis=0)[0] / largest, np.mean(off[way], axis=0)[1] / largest
        cells = f"{engine.megabytes:.1f} | {miou(maps[way], data, samples):.4f} | {worst:.3f} | {average:.4f}"
        same, ratio = share(maps[way], maps["float32"]), seconds[way] / seconds["float32"]
        print(f"| {way} | {cells} | {same:.2%} | {seconds[way]:.4f} | {ratio:.3f} |")
        np.savez_compressed(out / f"{way}.npz", **dict(zip(map(str, samples), maps[way], strict=True)))


def compare(engines: dict[str, Engine], data: Dataset, samples: list[int], out: Path) -> None:
    """Every graph here beside itself in the first run."""
    print("| weights | class of the first run | mIoU then | mIoU here |\n|---|---|---|---|")
    for way, engine in engines.items():
        maps, then = [engine.segment(data[sample].image) for sample in samples], np.load(out / f"{way}.npz")
        before = [then[str(sample)] for sample in samples]
        figures = [f"{miou(each, data, samples):.4f}" for each in (before, maps)]
        print(f"| {way} | {share(maps, before):.2%} | {' | '.join(figures)} |", flush=True)


def alternate(engines: dict[str, Engine]) -> dict[str, float]:
    """CPU seconds of a network input, without what is before and after."""
    least = dict.fromkeys(engines, float("inf"))
    for turn in range(TURNS):
        for way in np.random.default_rng(turn).permutation([*engines]):
            start = time.process_time()
            engines[way].run(engines[way].input)
            least[way] = min(least[way], time.process_time() - start)
    return least


def share(maps: list[np.ndarray], others: list[np.ndarray]) -> float:
    """Of the pixels that have the same class."""
    return float(np.mean([(a == b).mean() for a, b in zip(maps, others, strict=True)]))


def miou(maps: list[np.ndarray], data: Dataset, samples: list[int]) -> float:
    """The classes of the package are those of the data set, in its order."""
    names = data.classes.names
    pairs: Iterator[np.ndarray] = (
        confusion_matrix(data[sample].mask, actual, len(names)) for sample, actual in zip(samples, maps, strict=True)
    )
    return scores(sum(pairs, np.zeros((len(names), len(names) + 1), np.int64)), names, len(maps)).miou


if __name__ == "__main__":
    tyro.cli(main)
