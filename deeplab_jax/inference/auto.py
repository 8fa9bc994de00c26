"""`AutoModel`: loads a package of any backend and runs it on pictures. API as in the shared inference API."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from deeplab_jax.errors import InputError
from deeplab_jax.inference.images import preprocess
from deeplab_jax.inference.package import Package, background_id, read_package
from deeplab_jax.inference.postprocess import SemanticSegmentationResult, postprocess

Backend = Callable[[np.ndarray], np.ndarray]  # (b, h, w, 3) float32 network input -> (b, K, h2, w2) float32 logits


class SegmentationModel:
    """A loaded package. Call it with one BGR uint8 (H, W, 3) picture or a list of such of any sizes."""

    def __init__(self, package: Package, backend: Backend):
        self._package = package
        self._backend = backend

    @property
    def class_names(self) -> list[str]:
        return list(self._package.classes.names)

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """RGB colour of every class."""
        return self._package.classes.palette

    def __call__(
        self, images: np.ndarray | Sequence[np.ndarray], *, confidence: float = 0.5
    ) -> list[SemanticSegmentationResult]:
        """One result a picture, of the picture's own size.

        Args:
            images: uint8 BGR pictures as OpenCV reads them.
            confidence: pixels whose class is less probable become background with confidence 0; 0.0 keeps every
                pixel's most probable class.

        Raises:
            InputError: for anything that is no such picture or no probability.
        """
        if not 0 <= confidence <= 1:
            raise InputError(f"confidence={confidence} must be a probability, 0 to 1")
        images = [images] if isinstance(images, np.ndarray) else list(images)
        for image in images:
            check_image(image)
        results, step = [], self._package.max_batch
        for start in range(0, len(images), step):
            results += self._run(images[start : start + step], confidence)
        return results

    infer = __call__

    def _run(self, images: list[np.ndarray], confidence: float) -> list[SemanticSegmentationResult]:
        config, classes = self._package.preprocess, self._package.classes
        background = background_id(classes.names)
        inputs, spots = zip(*(preprocess(image, config) for image in images), strict=True)
        logits = self._backend(np.stack(inputs))
        if logits.shape[1] not in (len(classes), len(classes) - 1):
            raise InputError(
                f"the package {self._package.folder} names {len(classes)} classes but its weights give "
                f"{logits.shape[1]} logits a pixel; there must be as many, or one less (background)"
            )
        return [
            postprocess(planes, spot, config.size, image.shape[:2], len(classes), background, confidence)
            for planes, spot, image in zip(logits, spots, images, strict=True)
        ]


def check_image(image: object) -> None:
    """Raises InputError unless this is a BGR picture."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"a picture must be a uint8 array of shape (height, width, 3) in BGR order, not {found}")
    if not image.size:
        raise InputError(f"a picture of shape {image.shape} has no pixels")


class AutoModel:
    @staticmethod
    def from_pretrained(
        path: str | Path, *, device: str | None = None, providers: Sequence[str] | None = None
    ) -> SegmentationModel:
        """Loads a package folder with the engine that its model_config.json names.

        Args:
            path: the package folder.
            device: "cpu", "gpu" ("cuda") or "tpu"; by default the best that the engine finds.
            providers: ONNX Runtime execution providers in order of preference, instead of `device`.

        Raises:
            InputError: that names the file and the fault.
        """
        package = read_package(Path(path))
        if package.backend == "onnx":
            from deeplab_jax.inference.backends import onnx

            return SegmentationModel(package, onnx.load(package, device, providers))
        from deeplab_jax.inference.backends import jax

        return SegmentationModel(package, jax.load(package, device))
