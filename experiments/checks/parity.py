"""Every model of the family beside the library that it comes from, and docs/port.md's table of the outcome.

    pip install -e '.[port]' && python experiments/checks/parity.py
    python experiments/checks/parity.py --readme docs/port.md  # also writes the summary between the markers there

Random weights and random BatchNorm statistics; float32. segmentation_models_pytorch (batch 2, 96x160) and torchvision
(batch 2, 97x161, both outputs) run side by side with ours; for Google's research/deeplab the logits of its original
code for name-seeded weights are read from a folder. Exits with 1 if a case is beyond its tolerance.
"""

import argparse
import importlib
import itertools
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flax import nnx

from converters import smp, tf_deeplab, torchvision
from deeplab_jax.model_config import ModelConfig
from deeplab_jax.models import DeepLab, presets

CLASSES = 21
TOLERANCE = 1e-4  # of the largest logit: float32 sums in another order differ by some 4e-6
TF_TOLERANCE = 2e-5  # absolute: TensorFlow's own two kernels differ by 1e-6
MARKERS = "<!-- parity: experiments/checks/parity.py writes this table -->", "<!-- end of parity -->"


@dataclass(frozen=True)
class Case:
    library: str
    encoder: str
    variant: str
    parameters: int
    difference: float  # relative to the largest logit; absolute for research/deeplab
    agreement: float  # share of pixels with the same most probable class
    weights_return: bool  # are the weights written back bit-equal?

    @property
    def fits(self) -> bool:
        limit = TF_TOLERANCE if self.library == "research/deeplab" else TOLERANCE
        return self.difference <= limit and self.agreement >= 0.9999 and self.weights_return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="*", default=list(presets.SMP_ENCODERS), help="of the smp matrix")
    parser.add_argument(
        "--tf-reference",
        type=Path,
        default=Path(__file__).resolve().parents[3] / "shared" / "facts" / "tf_reference",
        help="folder of NAME.npz, NAME_variables.txt and seeded_weights.py",
    )
    parser.add_argument("--readme", type=Path, help="file whose table to write anew")
    options = parser.parse_args()
    print("| library | encoder | model | parameters | largest difference | argmax | weights back |")
    print("|---|---|---|---|---|---|---|")
    cases = [*smp_cases(options.encoders), *torchvision_cases(), *tf_cases(options.tf_reference)]
    if options.readme:
        write_table(cases, options.readme)
    misfits = [case for case in cases if not case.fits]
    print(f"{len(cases)} cases, {len(misfits)} beyond tolerance")
    sys.exit(bool(misfits))


def smp_cases(encoders: list[str]) -> Iterator[Case]:
    import segmentation_models_pytorch as library
    import torch

    images = np.random.default_rng(0).normal(size=(2, 96, 160, 3)).astype(np.float32)
    for encoder, (name, preset), stride in itertools.product(encoders, smp.PRESETS.items(), (8, 16)):
        torch.manual_seed(0)
        other = randomize(
            getattr(library, name)(encoder, encoder_weights=None, classes=CLASSES, encoder_output_stride=stride)
        )
        own = smp.from_state_dict(other.state_dict(), preset(encoder, CLASSES, stride))
        with torch.inference_mode():
            expected = other(to_torch(images)).permute(0, 2, 3, 1).numpy()
        actual = np.asarray(nnx.jit(lambda model, x: model(x))(own, images))
        back = smp.to_state_dict(own)
        same = all(np.array_equal(back[key], tensor.numpy()) for key, tensor in other.state_dict().items())
        other.load_state_dict({key: torch.from_numpy(array) for key, array in back.items()}, strict=True)
        same &= count(own) == sum(p.numel() for p in other.parameters())
        yield report("smp", encoder, f"{name} OS {stride}", own, [(actual, expected)], same)


def torchvision_cases() -> Iterator[Case]:
    import torch
    from torchvision.models import segmentation

    images = np.random.default_rng(0).normal(size=(2, 97, 161, 3)).astype(np.float32)
    for backbone in ("resnet50", "resnet101"):
        torch.manual_seed(0)
        build = getattr(segmentation, f"deeplabv3_{backbone}")
        other = randomize(build(weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=True))
        own = torchvision.from_state_dict(other.state_dict(), presets.torchvision_deeplabv3(backbone, CLASSES))
        with torch.inference_mode():
            outputs = other(to_torch(images))
        expected = [outputs[key].permute(0, 2, 3, 1).numpy() for key in ("out", "aux")]
        actual = map(np.asarray, nnx.jit(lambda model, x: model.with_auxiliary(x))(own, images))
        back = torchvision.to_state_dict(own)
        same = all(np.array_equal(back[key], tensor.numpy()) for key, tensor in other.state_dict().items())
        same &= count(own) == sum(p.numel() for p in other.parameters())
        yield report(
            "torchvision", backbone, "DeepLabV3 OS 8, aux", own, list(zip(actual, expected, strict=True)), same
        )


def tf_cases(folder: Path) -> Iterator[Case]:
    if not folder.is_dir():
        print(f"research/deeplab is left out: {folder} does not exist; give its place with --tf-reference")
        return
    sys.path.insert(0, str(folder))
    seeded_weights = importlib.import_module("seeded_weights")

    for path in sorted(folder.glob("*.npz")):
        encoder, config = tf_config(path.stem)
        lines = (folder / f"{path.stem}_variables.txt").read_text().splitlines()
        shapes = dict(line.split("\t") for line in lines)
        variables = {
            name: seeded_weights.seeded(name, tuple(map(int, shape.split(",")))) for name, shape in shapes.items()
        }
        own = tf_deeplab.from_variables(variables, config)
        with np.load(path) as reference:
            batch, height, width, _ = reference["input_shape"]
            expected = reference["logits"]
        images = seeded_weights.seeded_input(height, width, batch)
        actual = np.asarray(nnx.jit(lambda model, x: model.head(model.encoder(x), None))(own, images))
        back = tf_deeplab.to_variables(own)
        same = set(back) == set(variables) and all(np.array_equal(back[name], variables[name]) for name in back)
        variant = path.stem.removeprefix(encoder).strip("_")
        yield report("research/deeplab", encoder, variant, own, [(actual, expected)], same, relative=False)


def tf_config(case: str) -> tuple[str, ModelConfig]:
    """The model of a reference case, by its name."""
    match = re.fullmatch(
        r"(?P<variant>.*?)(?P<thin>_dm05)?(?P<dpc>_dpc)?(?P<plain>_plainconv)?(?P<whole>_aspp_decoder)?_os(?P<os>\d+)_.*",
        case,
    )
    if not match:
        raise ValueError(f"{case} is no case that is known")
    bare = match["variant"] == "mobilenet_v2" and not match["whole"]  # as published: no atrous branches, no decoder
    config = presets.tf_deeplab(
        match["variant"],
        CLASSES,
        int(match["os"]),
        atrous_rates=() if bare else None,
        decoder=not bare,
        dense_prediction_cell=bool(match["dpc"]),
        separable=not match["plain"],
        depth_multiplier=0.5 if match["thin"] else 1.0,
    )
    return match["variant"], config


def report(
    library: str,
    encoder: str,
    variant: str,
    model: DeepLab,
    pairs: list[tuple[np.ndarray, np.ndarray]],
    weights_return: bool,
    relative: bool = True,
) -> Case:
    difference = max(float(np.abs(a - b).max() / (np.abs(b).max() if relative else 1)) for a, b in pairs)
    agreement = min(float((a.argmax(-1) == b.argmax(-1)).mean()) for a, b in pairs)
    case = Case(library, encoder, variant, count(model), difference, agreement, weights_return)
    back = "bit-equal" if weights_return else "DIFFERENT"
    figures = f"{case.parameters:,} | {difference:.1e} | {100 * agreement:.3f} % | {back}"
    print(f"| {library} | {encoder} | {variant} | {figures} |", flush=True)
    return case


def write_table(cases: list[Case], readme: Path) -> None:
    """One line an encoder: the worst of its cases."""
    lines = [
        "| library | encoder | cases | parameters | largest difference | lowest argmax agreement |",
        "|---|---|---|---|---|---|",
    ]
    for (library, encoder), group in itertools.groupby(cases, lambda case: (case.library, case.encoder)):
        same = list(group)
        sizes = sorted({case.parameters for case in same})
        millions = " to ".join(dict.fromkeys(f"{size / 1e6:.1f}" for size in (sizes[0], sizes[-1])))
        worst, lowest = max(case.difference for case in same), min(case.agreement for case in same)
        lines.append(f"| {library} | {encoder} | {len(same)} | {millions} M | {worst:.1e} | {100 * lowest:.3f} % |")
    before, begin, rest = readme.read_text().partition(MARKERS[0])
    _, end, after = rest.partition(MARKERS[1])
    if not begin or not end:
        raise SystemExit(f"error: {readme} lacks the lines {MARKERS[0]} and {MARKERS[1]}")
    readme.write_text(f"{before}{begin}\n\n" + "\n".join(lines) + f"\n\n{end}{after}")


def randomize(model):
    """The PyTorch model in evaluation mode, with BatchNorms that are not the identity."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.get_buffer("running_mean").normal_(0, 0.1)
            module.get_buffer("running_var").uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.1)
    return model.eval()


def to_torch(images: np.ndarray):
    import torch

    return torch.from_numpy(images).permute(0, 3, 1, 2)


def count(model: DeepLab) -> int:
    return sum(leaf.size for _, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param)))


if __name__ == "__main__":
    main()
