"""CamVid, DeepLabV3+ ResNet-18, from random weights: small enough for a laptop's CPU.

    deeplab train experiments/recipes/camvid_resnet18.py --data.root CAMVID --out runs/camvid_resnet18

Published: no figure known for this network on these 11 classes. Measured: test mIoU 0.3351, see RESULTS.md.
"""

from pathlib import Path

from deeplab_jax.config import AugmentConfig, DataConfig, Experiment, OptimConfig, PreprocessConfig, TrainConfig
from deeplab_jax.models import presets

config = Experiment(
    model=presets.smp_deeplabv3plus(encoder="resnet18", classes=11, encoder_output_stride=16),
    data=DataConfig(root=Path("camvid"), format="camvid"),
    preprocess=PreprocessConfig(size=(360, 480)),
    augment=AugmentConfig(crop=(192, 192), scale=(0.5, 1.5)),
    optim=OptimConfig(lr=0.05),
    train=TrainConfig(steps=600, batch_size=8, validate_every=200, save_every=200),
)
