"""PASCAL VOC, DeepLabV3+ ResNet-101 at output stride 16, trained on the 10,582 images of trainaug.

    deeplab convert timm resnet101.safetensors --encoder tu-resnet101 --out imagenet
    deeplab train experiments/recipes/voc_resnet101.py --data.root VOC2012 --data.train-split trainaug \\
        --init.package imagenet

Published (mmsegmentation, single scale): mIoU 78.85. Measured: not run.
"""

from pathlib import Path

from deeplab_jax.config import AugmentConfig, DataConfig, Experiment, OptimConfig, PreprocessConfig, TrainConfig
from deeplab_jax.models import presets

config = Experiment(
    model=presets.smp_deeplabv3plus("tu-resnet101", classes=21, encoder_output_stride=16),
    data=DataConfig(root=Path("VOC2012"), format="voc", workers=8),
    preprocess=PreprocessConfig(size=(513, 513), resize_mode="pad"),
    augment=AugmentConfig(crop=(513, 513), scale=(0.5, 2.0)),
    optim=OptimConfig(lr=0.007),
    train=TrainConfig(steps=30_000, batch_size=16, precision="bfloat16", validate_every=2000, save_every=1000),
)
