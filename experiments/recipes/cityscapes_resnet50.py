"""Cityscapes, DeepLabV3+ ResNet-50 at output stride 8.

    deeplab convert timm resnet50.safetensors --encoder tu-resnet50 --out imagenet
    deeplab train experiments/recipes/cityscapes_resnet50.py --data.root CITYSCAPES --init.package imagenet

Published (mmsegmentation, single scale; multi-scale and flip): mIoU 80.09; 81.13. Measured: not run.
"""

from pathlib import Path

from deeplab_jax.config import AugmentConfig, DataConfig, Experiment, OptimConfig, PreprocessConfig, TrainConfig
from deeplab_jax.models import presets

config = Experiment(
    model=presets.smp_deeplabv3plus("tu-resnet50", classes=19, encoder_output_stride=8),
    data=DataConfig(root=Path("cityscapes"), format="cityscapes", workers=8),
    preprocess=PreprocessConfig(size=(1024, 2048)),
    augment=AugmentConfig(crop=(512, 1024), scale=(0.5, 2.0)),
    optim=OptimConfig(lr=0.01),
    train=TrainConfig(steps=80_000, batch_size=8, precision="bfloat16", validate_every=4000, save_every=1000),
)
