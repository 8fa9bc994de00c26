"""COCO-Stuff, 171 classes, DeepLabV3+ ResNet-50 at output stride 16.

    deeplab convert timm resnet50.safetensors --encoder tu-resnet50 --out imagenet
    deeplab train experiments/recipes/cocostuff_resnet50.py --data.root COCOSTUFF --init.package imagenet

Published: no figure known for this network. Measured: not run.
"""

from pathlib import Path

from deeplab_jax.config import AugmentConfig, DataConfig, Experiment, OptimConfig, PreprocessConfig, TrainConfig
from deeplab_jax.models import presets

config = Experiment(
    model=presets.smp_deeplabv3plus("tu-resnet50", classes=171, encoder_output_stride=16),
    data=DataConfig(root=Path("cocostuff"), format="cocostuff", workers=8),
    preprocess=PreprocessConfig(size=(513, 513)),
    augment=AugmentConfig(crop=(513, 513), scale=(0.5, 2.0)),
    optim=OptimConfig(lr=0.01),
    train=TrainConfig(steps=80_000, batch_size=16, precision="bfloat16", validate_every=8000, save_every=2000),
)
