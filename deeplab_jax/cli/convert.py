"""`deeplab convert`."""

from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from deeplab_jax.cli.terminal import say
from deeplab_jax.errors import InputError


def convert(
    source: Positional[Literal["smp", "torchvision", "tf", "timm"]],
    weights: Positional[Path],
    out: Path,
    encoder: str | None = None,
    output_stride: Literal[8, 16] | None = None,
    atrous_rates: tuple[int, ...] | None = None,
    class_names: Path | None = None,
    multi_grid: tuple[int, ...] | None = None,
    size: tuple[int, int] | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    architecture: Literal["DeepLabV3", "DeepLabV3Plus"] | None = None,
    verify: bool = False,
) -> None:
    """Weights of another library to a JAX package.

    Args:
        source: whose weights: segmentation_models_pytorch's, torchvision's, Google's research/deeplab, or an ImageNet
            classifier of timm or torchvision, which becomes the encoder of an otherwise untrained DeepLab.
        weights: a `.safetensors` file; a PyTorch state dict, checkpoint or TorchScript archive; a folder of
            `save_pretrained`; for tf a checkpoint (`model.ckpt-30000`), a frozen graph (`.pb`) or an `.npz`.
        out: the package folder to write.
        encoder: its name, such as resnet50 or tu-xception65; by default read off the weights.
        output_stride: of the encoder; by default what the file records, else the other library's default.
        atrous_rates: of the pyramid, likewise.
        multi_grid: factors on the dilations of the last stage of tf's ResNets and Xceptions, such as 1 2 4; likewise.
        class_names: a file with one class name a line; by default PASCAL VOC's where the source's published weights
            have those 21, otherwise background, class_1, class_2...
        size: height and width of the network input; by default 512 512, for torchvision 520 520, for tf 513 513.
        mean: that images of 0 to 1 were normalized with, red, green and blue; by default what the file records, else
            ImageNet's, for timm's Xceptions 0.5. Google's models have their own.
        std: likewise, the deviations.
        architecture: what an ImageNet encoder is put into; by default DeepLabV3Plus.
        verify: also run the other library, where it is installed, and compare.
    """
    from converters.convert import Options
    from converters.convert import convert as run
    from deeplab_jax.classes import Classes, default_palette
    from deeplab_jax.data.formats.folder import read_class_names
    from deeplab_jax.package import jax_weights
    from deeplab_jax.package.folder import check_vacant, one_logit_tells

    check_vacant(out)
    names = read_class_names(class_names) if class_names else None
    classes = len(names) if names else None
    options = Options(encoder, output_stride, atrous_rates, size, multi_grid, mean, std, architecture, classes)
    converted = run(source, weights, options)
    config = converted.model.config
    names = names or converted.class_names or default_class_names(config.num_classes)
    if len(names) != config.num_classes and not (config.num_classes == 1 and one_logit_tells(names)):
        raise InputError(f"{class_names} names {len(names)} classes but {weights} has {config.num_classes}")
    for line in converted.summary():
        say(line)
    if verify:
        compare(source, weights, converted, out)
    jax_weights.save(out, converted.model, Classes(names, default_palette(len(names))), converted.preprocess)
    say(f"package: {out}")


def compare(source: str, weights: Path, converted: Any, out: Path) -> None:
    """Raises InputError where the other library's network gives something else."""
    from converters.verify import verify

    comparison = verify(source, weights, converted)
    for line in comparison.lines:
        say(line)
    if not comparison.equal:
        raise InputError(f"the converted model differs from {source}'s; {out} was not written")


def default_class_names(count: int) -> tuple[str, ...]:
    from deeplab_jax.classes import FOREGROUND

    return (FOREGROUND,) if count == 1 else ("background", *(f"class_{i}" for i in range(1, count)))
