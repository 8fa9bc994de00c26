"""One JAX package to packages for several engines, and what came of each."""

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8

from converters.export import torch_package
from converters.export.onnx_graph import onnx_package
from converters.export.onnx_graph.session import OneImage
from converters.export.source import read_source
from converters.export.tensorrt_engine import tensorrt_package
from converters.export.tensorrt_engine.tensorrt_package import Span
from deeplab_jax.config import PreprocessConfig
from deeplab_jax.data.dataset import Dataset
from deeplab_jax.errors import InputError
from deeplab_jax.evaluate.evaluate import evaluate, match_classes
from deeplab_jax.image.preprocess import in_own_size, preprocess
from deeplab_jax.image.read import read_image
from deeplab_jax.inference.auto_model import AutoModel, SegmentationModel
from deeplab_jax.package.folder import Package, check_vacant, read_package
from deeplab_jax.package.inference_config import difference_from_shared

Engine = Literal["onnx", "tensorrt", "torch"]
Precision = Literal["float32", "float16", "int8"]
Report = Callable[[str, bool], None]  # what is being done; or, if True, what was found

Pixels = UInt8[np.ndarray, "h w 3"]  # RGB

CALIBRATION = 64  # images, evenly spread: more hardly move the ranges
COMPARED = 8  # of them, to see what a lower precision changes
MOST_LOST = 0.02  # mIoU that int8 may cost before parts of the network stay in float32


@dataclass(frozen=True)
class Options:
    dynamic_size: bool = False  # images of any height and width, in their own size, not fitted into the package's
    precision: Precision = "float32"  # inside the graph; input and logits are float32
    calibration: "Images | None" = None  # that show int8 and float16 how large values become
    data: Dataset | None = None  # labeled, to measure what a lower precision costs
    batch: Span | None = None  # images at once in a TensorRT engine: least, usual, most
    height: Span | None = None  # px, of what a TensorRT engine takes with `dynamic_size`
    width: Span | None = None

    @property
    def profile(self) -> tensorrt_package.Profile:
        return tensorrt_package.Profile(self.batch or tensorrt_package.ANY_BATCH, self.height, self.width)

    def check(self, engines: set[Engine]) -> None:
        """Raises InputError for what is asked for but concerns none of the engines, and for what is missing."""
        graphs, lower = engines - {"torch"}, self.precision != "float32"
        concern = {
            "--dynamic-size": (self.dynamic_size, bool(graphs), "--to onnx or tensorrt"),
            f"--precision {self.precision}": (lower, bool(graphs), "--to onnx or tensorrt"),
            "--calibration": (self.calibration, lower, "--precision float16 or int8"),
            "--data.root": (self.data is not None, lower, "--precision float16 or int8"),
            "--batch": (self.batch, "tensorrt" in engines, "--to tensorrt"),
            "--height": (self.height, "tensorrt" in engines and self.dynamic_size, "--to tensorrt --dynamic-size"),
            "--width": (self.width, "tensorrt" in engines and self.dynamic_size, "--to tensorrt --dynamic-size"),
        }
        for option, (given, heeded, place) in concern.items():
            if given and not heeded:
                raise InputError(f"{option} does nothing here; it goes with {place}")
        if self.precision == "int8" and not self.calibration:
            raise InputError("--precision int8 needs images like what it will see: give --calibration or --data.root")
        if "tensorrt" in engines and self.dynamic_size and not (self.height and self.width):
            raise InputError("--to tensorrt --dynamic-size needs --height and --width: least, usual and most pixels")


@dataclass(frozen=True)
class Images:
    """RGB images of files or of a data set, at most CALIBRATION, read when they are asked for."""

    source: Sequence[Path] | Dataset

    def __iter__(self) -> Iterator[Pixels]:
        count = len(self.source)
        for index in sorted({i * count // CALIBRATION for i in range(CALIBRATION)}):
            image = self.source[index]
            yield read_image(image) if isinstance(image, Path) else image.image


@dataclass(frozen=True)
class Exported:
    engine: Engine
    folder: Path
    megabytes: float
    milliseconds: float | None  # of AutoModel for an image of the package's size; None: it does not run this engine


def export(source: Path, engines: Sequence[Engine], out: Path, options: Options, report: Report) -> list[Exported]:
    """Writes `out`; of several engines `out/onnx` and so on.

    Args:
        report: told what is being done, and what was found.

    Raises:
        InputError: for what cannot be exported, or differs from JAX. What was written before that stays.
    """
    folders: dict[Engine, Path] = {engine: out if len(engines) == 1 else out / engine for engine in engines}
    check_vacant(out)
    options.check({*folders})
    graphs = {*folders} - {"torch"}
    if graphs:
        onnx_package.check_installed()
    read = read_source(source)
    if options.data:
        match_classes(list(read.package.classes.names), options.data.classes.names)
    if "tensorrt" in folders:
        from deeplab_jax.inference.backends.tensorrt_backend import check_usable

        sides = (None, None) if options.dynamic_size else read.size
        options.profile.shapes((None, 3, *sides), read.size)
        check_usable("exporting to TensorRT")
    ready = torch_package.prepare(read) if "torch" in folders else None  # it refuses most, and at once
    if graphs:
        report("tracing the model and comparing the graph with JAX", False)
        graph, difference = onnx_package.build(read, options.dynamic_size)
        report(f"largest difference from JAX: {difference:.1e} of the largest logit", True)
        for engine, folder in folders.items():
            if engine != "torch":
                write(engine, folder, graph, read.package, options, report)
    if ready:
        torch_package.write(folders["torch"], ready)
    if options.dynamic_size:
        height, width = read.size
        fit = f"size=({height}, {width}), or --size {height} {width}"
        report(f"note: images are run in their own size; to fit them into the package's: {fit}", True)
    fitted = not options.dynamic_size or "torch" in folders
    if fitted and (difference := difference_from_shared(read.package.preprocess)):
        report(f"note: {difference}", True)
    return [measure(engine, folder) for engine, folder in folders.items()]


def write(engine: Engine, folder: Path, graph: Any, package: Package, options: Options, report: Report) -> None:
    """A package of an engine that takes ONNX graphs.

    What a graph for TensorRT gives is measured without ONNX Runtime's own kernels for 8 bits, which it is not made for.
    """
    exact = engine == "tensorrt"
    with tempfile.TemporaryDirectory() as scratch:
        if options.precision != "float32":
            report(f"reducing the precision to {options.precision}", False)
        reduced = reduce(graph, package, options, symmetric=engine == "tensorrt")
        if options.precision != "float32":
            onnx_package.check_runs(reduced, onnx_package.checked_sizes(package, options.dynamic_size), exact=exact)
            inputs = list(islice(network_inputs(package, options), COMPARED))
            same = onnx_package.agreement(graph, reduced, inputs, exact=exact)
            of = "images" if options.calibration else "random images"
            report(f"the same class as in float32 on {same:.2%} of the pixels of {len(inputs)} {of}", True)
        if options.data and options.precision != "float32":
            report("measuring mIoU", False)
            before, after = (miou(each, Path(scratch), package, options, exact) for each in (graph, reduced))
            if options.precision == "int8" and (lost := before - after) > MOST_LOST:
                report("looking for what 8 bits spoil", False)
                for spared, reduced in sparing(graph, package, options, symmetric=engine == "tensorrt"):
                    after = miou(reduced, Path(scratch), package, options, exact)
                    if before - after <= MOST_LOST:
                        same = onnx_package.agreement(graph, reduced, inputs, exact=exact)
                        report(f"all in 8 bits lost {lost:.4f} of mIoU: {', '.join(spared)} stay in float32", True)
                        report(f"so the same class as in float32 on {same:.2%} of the pixels", True)
                        break
                onnx_package.check_runs(reduced, onnx_package.checked_sizes(package, options.dynamic_size), exact=exact)
            report(
                f"mIoU of {len(options.data)} images: {before:.4f} in float32, {after:.4f} in {options.precision}",
                True,
            )
        destination = folder if engine == "onnx" else Path(scratch, "onnx")
        onnx_package.write(destination, reduced, package, options.dynamic_size)
        if engine == "tensorrt":
            build_engine(destination, folder, options, report)


def reduce(graph: Any, package: Package, options: Options, symmetric: bool) -> Any:
    """The graph in the precision that is asked for."""
    if options.precision == "float32":
        return graph
    from converters.export.onnx_graph import precision

    inputs = network_inputs(package, options)
    if options.precision == "float16":
        return precision.to_float16(graph, inputs)
    return precision.to_int8(graph, inputs, symmetric=symmetric)


def sparing(graph: Any, package: Package, options: Options, symmetric: bool) -> Iterator[tuple[list[str], Any]]:
    """Parts of the network that stay in float32, more and more, what 8 bits spoil most first; each with its graph."""
    from converters.export.onnx_graph import precision, spare

    def quantize(inputs: Iterable[OneImage], spared: Sequence[str]) -> Any:
        return precision.to_int8(graph, inputs, symmetric=symmetric, spared=spared)

    few = list(islice(network_inputs(package, options), COMPARED))
    parts = spare.worst_first(graph, partial(quantize, few), few)
    for count in range(1, len(parts) + 1):
        yield parts[:count], quantize(network_inputs(package, options), parts[:count])


def network_inputs(package: Package, options: Options) -> Iterator[OneImage]:
    """Of the calibration images or what stands in for them."""
    for image in options.calibration or noise(package.preprocess.size):
        config = own_size(image, package.preprocess) if options.dynamic_size else package.preprocess
        yield preprocess(image, config, "rgb")[0][None]


def own_size(image: Pixels, config: PreprocessConfig) -> PreprocessConfig:
    """What makes network input of an image in its own size, scaled down where it has more pixels than the package's.

    All values of the network are looked at, so large images would take gigabytes.
    """
    own = in_own_size(config, *image.shape[:2])
    scale = min((math.prod(config.size) / math.prod(own.size)) ** 0.5, 1)
    height, width = (max(int(scale * side), 1) for side in own.size)
    return replace(config, size=(height, width))


def noise(size: tuple[int, int]) -> list[Pixels]:
    """Stands in where there are no images: black, white and random ones."""
    random = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    return [np.zeros((*size, 3), np.uint8), np.full((*size, 3), 255, np.uint8), *random]


def build_engine(source: Path, folder: Path, options: Options, report: Report) -> None:
    """The TensorRT package of an ONNX package."""

    def progress(phase: str, done: int, total: int) -> None:
        report(f"TensorRT: {phase}, {done} of {total}", False)

    difference = tensorrt_package.export(source, folder, options.profile, progress)
    report(f"largest difference of the engine from ONNX Runtime: {difference:.1e} of the largest logit", True)


def miou(graph: Any, scratch: Path, package: Package, options: Options, exact: bool) -> float:
    """On the labeled data; `exact` as in `open_session`."""
    assert options.data
    onnx_package.write(scratch / "measured", graph, package, options.dynamic_size)
    session = onnx_package.open_session(graph, exact=exact)
    written = read_package(scratch / "measured")
    model = SegmentationModel(written, lambda images: session.run(None, {"images": images})[0])
    return evaluate(model, options.data).miou


def measure(engine: Engine, folder: Path) -> Exported:
    megabytes = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    if engine == "torch":
        return Exported(engine, folder, megabytes, None)
    model = AutoModel.from_pretrained(folder)
    image = np.full((*read_package(folder).preprocess.size, 3), 127, np.uint8)
    model.warm_up()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        model(image)
        seconds.append(time.perf_counter() - start)
    return Exported(engine, folder, megabytes, statistics.median(seconds) * 1e3)
