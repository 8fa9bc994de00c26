"""Runs converted weights beside the library that they come from, where that is installed."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Float, Float32

from converters import mapping, smp, timm, torch_encoders, torchvision
from converters.convert import Converted
from converters.export.compare import layer_outputs
from deeplab_jax.errors import InputError
from deeplab_jax.image.preprocess import preprocess
from deeplab_jax.model_config import ASPPConfig, ModelConfig, XceptionConfig
from deeplab_jax.models import DeepLab
from deeplab_jax.models.state import abstract_model, fill, flat_state

TOLERANCE = 1e-4  # of the largest value: float32 sums in another order differ by some 4e-6
SIZE = (128, 192)  # of the random image: a multiple of every output stride, as segmentation_models_pytorch demands


@dataclass(frozen=True)
class Peer:
    """The same network in the other library."""

    module: Any  # torch.nn.Module
    run: Callable[[Any], Any]  # NCHW tensor -> NCHW tensor
    names: mapping.Rules
    own: Callable[[DeepLab, Any], Any] = lambda model, images: model(images)


@dataclass(frozen=True)
class Comparison:
    equal: bool
    lines: list[str]  # the largest difference; and that of every layer, if it is too large


def verify(source: str, path: Path, converted: Converted) -> Comparison:
    """Both networks on a random image: ours, and the one that the source's own library builds or reads.

    Raises:
        InputError: where the other library is not installed or there is nothing that it could run.
    """
    if source == "tf":
        return verify_graph(path, converted)
    model, weights = converted.model, converted.weights
    try:
        import torch

        model, peer = PEERS[source](model)
    except ImportError as error:
        raise InputError(f"--verify needs {error.name}; install it with: pip install 'deeplab_jax[port]'") from None
    except RuntimeError as error:  # torch and torchvision that do not belong together
        raise InputError(f"--verify: the library of {source} weights cannot be imported or built: {error}") from None
    counter = mapping.TORCH.counter
    aside = timm.CLASSIFIER_HEADS if source == "timm" else ()
    floats = {
        name: array
        for name, array in weights.items()
        if not name.endswith(f".{counter}") and not name.startswith(aside)
    }
    tensors = {name: torch.from_numpy(mapping.to_numpy(array).copy()) for name, array in floats.items()}
    missing = [
        name
        for name in peer.module.load_state_dict(tensors, strict=False).missing_keys
        if str(counter) not in name and not name.startswith(aside)
    ]
    if missing:
        raise InputError(f"--verify: the other library's model has {len(missing)} tensors more, such as {missing[0]}")
    peer.module.eval()
    images = np.random.default_rng(0).normal(size=(1, *SIZE, model.config.encoder.in_channels)).astype(np.float32)
    with torch.inference_mode():
        expected = peer.run(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy().transpose(0, 2, 3, 1)
    result = np.asarray(nnx.jit(peer.own)(model, images))
    worst = difference(result, expected)
    lines = [
        f"largest difference from {source} {worst:.1e} of the largest value, on a random {SIZE[0]}x{SIZE[1]} image"
    ]
    if worst <= TOLERANCE:
        return Comparison(True, lines)
    lines += [f"  {name}: {layer:.1e}" for name, layer in layer_differences(model, peer, images)]
    return Comparison(False, lines)


def verify_graph(path: Path, converted: Converted) -> Comparison:
    """A frozen graph of research/deeplab in TensorFlow, up to the logits before the last upsampling."""
    if path.suffix != ".pb":
        raise InputError("--verify can run a frozen graph (.pb), but a checkpoint holds no network that could be run")
    try:
        tf = importlib.import_module("tensorflow.compat.v1")
    except ImportError:
        raise InputError("--verify needs TensorFlow; install it with: pip install tensorflow") from None
    model, config = converted.model, converted.preprocess
    image = np.random.default_rng(0).integers(0, 256, (*config.size, 3), np.uint8)
    definition = tf.GraphDef.FromString(path.read_bytes())
    try:
        with tf.Graph().as_default() as graph, tf.Session(graph=graph) as session:
            tf.import_graph_def(definition, name="")
            expected = session.run("logits/semantic/BiasAdd:0", {"ImageTensor:0": image[None]})
    except (KeyError, ValueError, tf.errors.OpError) as error:
        raise InputError(f"--verify: {path} has another input or output than Google's exports: {error}") from None
    images, _ = preprocess(image[..., ::-1], config)
    images = images.transpose(1, 2, 0)[None]
    result = np.asarray(nnx.jit(lambda model, x: model.head(model.encoder(x), None))(model, images))
    worst = difference(result, expected)
    size = f"{config.size[0]}x{config.size[1]}"
    line = f"largest difference from TensorFlow {worst:.1e} of the largest value, on a random {size} image"
    return Comparison(worst <= TOLERANCE, [line])


def difference(result: Float[np.ndarray, "*shape"], expected: Float[np.ndarray, "*shape"]) -> float:
    return float(np.abs(result - expected).max() / max(np.abs(expected).max(), np.finfo(np.float32).tiny))


def layer_differences(model: DeepLab, peer: Peer, images: Float32[np.ndarray, "1 h w c"]) -> list[tuple[str, float]]:
    """Of the output of every BatchNorm, in the order in which the other library runs them."""
    import torch

    own = layer_outputs(model, peer.own, images)
    other: dict[str, np.ndarray] = {}

    def record(name: str, output: Any) -> None:
        other[name] = output.numpy().copy()

    for name, module in peer.module.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_hook(lambda _, __, output, name=name: record(name, output))
    with torch.inference_mode():
        peer.run(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    names = {mapping.rename(path, peer.names): path for path in own}
    return [
        (name, difference(own[names[name]], output.transpose(0, 2, 3, 1)))
        for name, output in other.items()
        if name in names
    ]


def smp_peer(model: DeepLab) -> tuple[DeepLab, Peer]:
    import segmentation_models_pytorch

    config = model.config
    build = getattr(segmentation_models_pytorch, "DeepLabV3Plus" if config.decoder else "DeepLabV3")
    module = build(
        smp.encoder_name(config),
        encoder_weights=None,
        encoder_output_stride=config.encoder.output_stride,
        in_channels=config.encoder.in_channels,
        classes=config.num_classes,
        decoder_channels=config.aspp.channels,
        decoder_atrous_rates=config.aspp.atrous_rates,
        decoder_aspp_separable=isinstance(config.aspp, ASPPConfig) and config.aspp.branches != "dense",
    )
    return model, Peer(module, module, smp.names(config))


def torchvision_peer(model: DeepLab) -> tuple[DeepLab, Peer]:
    from torchvision.models import segmentation

    build = getattr(segmentation, f"deeplabv3_{torchvision.backbone_name(model.config)}")
    auxiliary = model.config.aux_head is not None
    module = build(weights=None, weights_backbone=None, num_classes=model.config.num_classes, aux_loss=auxiliary)
    return model, Peer(module, lambda images: module(images)["out"], torchvision.names(model.config))


def timm_peer(model: DeepLab) -> tuple[DeepLab, Peer]:
    """Their classifiers are plain: ours is run at output stride 32 too, up to the last feature map."""
    encoder = smp.encoder_name(model.config)
    plain = abstract_model(at_stride_32(model.config))
    plain = fill(plain, {path: leaf[...] for path, leaf in flat_state(model).items()})
    if encoder == "mobilenet_v2":
        from torchvision.models import mobilenet_v2

        module: Any = mobilenet_v2(weights=None)
        run = module.features
    else:
        import timm

        module = timm.create_model(encoder.removeprefix("tu-"), pretrained=False)
        run = module.forward_features
    pre_activation = isinstance(model.config.encoder, XceptionConfig) and model.config.encoder.pre_activation
    last = nnx.relu if pre_activation else lambda x: x
    names = torch_encoders.names(model.config.encoder, "")
    return plain, Peer(module, run, names, lambda model, images: last(model.encoder(images).high_level))


def at_stride_32(config: ModelConfig) -> ModelConfig:
    return replace(config, encoder=replace(config.encoder, output_stride=32))


PEERS = {"smp": smp_peer, "torchvision": torchvision_peer, "timm": timm_peer}
