"""`AutoModel`: loads a package of any backend and runs it on images. API as in the shared inference API."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deeplab_jax.array_types import UInt
from deeplab_jax.config import PreprocessConfig
from deeplab_jax.errors import InputError
from deeplab_jax.image.contrast import ColorFormat
from deeplab_jax.image.preprocess import in_own_size, preprocess
from deeplab_jax.image.resize import Placement, used_part
from deeplab_jax.inference.backends import Backend, Logits, NetworkInput
from deeplab_jax.inference.class_map import write_class_map
from deeplab_jax.inference.inputs import as_list, as_pixels
from deeplab_jax.inference.postprocess import (
    ARGMAX,
    HostArray,
    Rule,
    SemanticSegmentationResult,
    Threshold,
    postprocess,
)
from deeplab_jax.package.find import find_package
from deeplab_jax.package.folder import InputSize, Package, background_id, check_logits, read_package
from deeplab_jax.package.limits import check_forward

Confidence = float | int | str | None
DEFAULT_CONFIDENCE = 0.5
NOT_GIVEN = ((str, "default"), (str, "best"), (int, 0), (int, 1))  # so the shared API takes them
COLOR_FORMATS: dict[str | None, ColorFormat | None] = {None: None, "rgb": "rgb", "bgr": "bgr"}


class SegmentationModel:
    """A loaded package. Call it with an image, or a list of images of any kinds and sizes; from any thread."""

    def __init__(self, package: Package, backend: Backend):
        self._package = package
        self._backend = backend

    @property
    def class_names(self) -> list[str]:
        return list(self._package.classes.names)

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """RGB color of every class."""
        return self._package.classes.palette

    @property
    def own_size(self) -> bool:
        """Whether images are network input in their own size, and not fitted into one."""
        return self._package.any_size

    def __call__(
        self, images: Any, *, confidence: Confidence = DEFAULT_CONFIDENCE, input_color_format: str | None = None
    ) -> list[SemanticSegmentationResult]:
        """One result an image, of the image's own size.

        Args:
            images: an image, a list of images, or a tensor (b, 3, h, w). An image is a uint8 array (h, w, 3) in BGR
                order as OpenCV reads them, a PyTorch tensor (3, h, w) in RGB order, a PIL image or the path of a
                file; `inputs.as_pixels` says what else.
            confidence: pixels whose class is less probable become background with confidence 0. "argmax" keeps every
                pixel's most probable class. So does 0.0, but where the weights give one logit it makes every pixel
                foreground, as in the shared inference API. As there, the integers 0 and 1 count as not given, and so do
                None, "default" and "best".
            input_color_format: order of the channels of arrays and tensors, if it is not the above.

        Raises:
            InputError: for anything that is no such image or no probability.
        """
        rule, listed = self._rule(confidence), as_list(images)
        if not (isinstance(input_color_format, str | None) and input_color_format in COLOR_FORMATS):
            raise InputError(f"input_color_format={input_color_format!r} must be 'rgb' or 'bgr'")
        color_format = COLOR_FORMATS[input_color_format]
        results, step = [], 1 if self._package.any_size else self._package.max_batch
        for start in range(0, len(listed), step):
            results += self._run(listed[start : start + step], color_format, rule)
        return results

    infer = __call__

    def class_ids(self, image: Any, confidence: Confidence, color_format: ColorFormat) -> UInt[np.ndarray, "h w"]:
        """The ids of one image, in as few bytes as hold them; with int64 and confidences they take 12 a pixel."""
        rule = self._rule(confidence)
        (logits,), config, ((placement, size),) = self._forward([image], color_format)
        ids = np.full(size, rule.background, np.min_scalar_type(rule.class_count - 1))
        write_class_map(logits, placement, config.size, rule, ids[used_part(*size, config).window])
        return ids

    def warm_up(self, batch_size: int = 1) -> None:
        """Runs the network on a gray batch, so that what an engine prepares for that many images is done."""
        size = self._package.preprocess.size
        self([np.full((*size, 3), 127, np.uint8)] * batch_size)

    def _rule(self, confidence: Confidence) -> Rule:
        names = self._package.classes.names
        return Rule(len(names), background_id(names), as_threshold(confidence))

    def _run(self, images: list[Any], color_format: ColorFormat | None, rule: Rule) -> list[SemanticSegmentationResult]:
        logits, config, places = self._forward(images, color_format)
        results = []
        for planes, (placement, size) in zip(logits, places, strict=True):
            used = used_part(*size, config)
            part = used.height, used.width
            result = postprocess(planes, placement, config.size, part, rule)
            results.append(result if part == size else on_background(result, used, size, rule.background))
        return results

    def _forward(
        self, images: list[Any], color_format: ColorFormat | None
    ) -> tuple[Logits, PreprocessConfig, list[tuple[Placement, tuple[int, int]]]]:
        """The logits, and the rest as of `_network_input`."""
        inputs, config, places = self._network_input(images, color_format)
        logits = self._backend(inputs)
        if logits.ndim != 4:
            raise InputError(
                f"{self._package.folder}: its weights give {logits.shape}, not (batch, classes, height, width)"
            )
        check_logits(self._package, logits.shape[1])
        return logits, config, places

    def _network_input(
        self, images: list[Any], color_format: ColorFormat | None
    ) -> tuple[NetworkInput, PreprocessConfig, list[tuple[Placement, tuple[int, int]]]]:
        """The batch, how it was made, and for every image its place in the network input and its own size."""
        config = self._package.preprocess
        if self._package.any_size:  # one image, which says how large the network input is
            pixels, order = as_pixels(images[0], color_format)
            config = in_own_size(config, pixels.shape[0], pixels.shape[1])
            check_forward(self._package.folder, config.size, self._package.planes, 1)
            planes, placement = preprocess(pixels, config, order)
            return planes[None], config, [(placement, (pixels.shape[0], pixels.shape[1]))]
        batch, places = np.empty((len(images), config.channels, *config.size), np.float32), []
        for image, planes in zip(images, batch, strict=True):
            pixels, order = as_pixels(image, color_format)
            _, placement = preprocess(pixels, config, order, planes)
            places.append((placement, (pixels.shape[0], pixels.shape[1])))
        return batch, config, places


def as_threshold(confidence: Any) -> Threshold:
    """Raises InputError for what is no probability."""
    if confidence is None or (type(confidence), confidence) in NOT_GIVEN:
        return DEFAULT_CONFIDENCE
    if isinstance(confidence, str) and confidence == ARGMAX:
        return ARGMAX
    if not (isinstance(confidence, (float, np.floating)) and 0 <= float(confidence) <= 1):
        raise InputError(f"confidence={confidence!r} must be a probability, 0.0 to 1.0, or 'argmax'")
    return float(confidence)


def on_background(
    part: SemanticSegmentationResult, used: Placement, size: tuple[int, int], background: int
) -> SemanticSegmentationResult:
    """The result of a part of an image in a map of the whole.

    The shared API's client leaves it at the part where that begins in the corner; but then it lies on no image.
    """
    ids, confidence = np.full(size, background, np.int64), np.zeros(size, np.float32)
    ids[used.window], confidence[used.window] = part.segmentation_map, part.confidence
    return SemanticSegmentationResult(ids.view(HostArray), confidence.view(HostArray))


class AutoModel:
    @staticmethod
    def from_pretrained(
        path: str | Path,
        *,
        device: Any = None,
        providers: Sequence[Any] | None = None,
        threads: int | None = None,
        model_directory: str | Path | None = None,
        size: InputSize | None = None,
    ) -> SegmentationModel:
        """Loads a package folder with the engine that its model_config.json names.

        Args:
            path: the package folder; or `project/3` or `project`, a folder in `model_directory`.
            device: "cpu", "gpu" ("cuda") or "tpu", or such as "gpu:1"; or a device of PyTorch's. By default the best
                that the engine finds.
            providers: ONNX Runtime execution providers in order of preference, instead of `device`: names, or pairs of
                a name and a dictionary of options.
            threads: that ONNX Runtime computes one operation with; by default as many as there are cores.
            model_directory: of packages; by default what the environment variable DEEPLAB_MODELS names.
            size: (height, width) in pixels that images are fitted into, in the way that the package says; or "image":
                every image is network input in its own size, one at a time. By default the package's own, which for
                one exported with --dynamic-size is "image". Any with JAX; with other engines what the graph takes.

        Raises:
            InputError: that names the file and the fault.
        """
        package = read_package(find_package(path, model_directory), size)
        device = None if device is None else str(device)
        if package.backend == "onnx":
            from deeplab_jax.inference.backends import onnx_backend

            return SegmentationModel(package, onnx_backend.load(package, device, providers, threads))
        if package.backend == "trt":
            from deeplab_jax.inference.backends import tensorrt_backend

            return SegmentationModel(package, tensorrt_backend.load(package, device))
        try:
            from deeplab_jax.inference.backends import jax_backend
        except ImportError as error:
            raise InputError(
                f"{package.folder} is run by JAX, which is not whole here ({error}); install it, or export the package "
                "to ONNX elsewhere: deeplab export"
            ) from None

        return SegmentationModel(package, jax_backend.load(package, device))
