"""CamVid, DeepLabV3+ ResNet-50 at output stride 16, rare classes weighing more.

    deeplab convert timm resnet50.safetensors --encoder tu-resnet50 --out imagenet
    deeplab train experiments/recipes/camvid_resnet50.py --data.root CAMVID --init.package imagenet

Published: no figure known for this network on these 11 classes. Measured: not run.
"""

from pathlib import Path

from deeplab_jax.config import (
    AugmentConfig,
    DataConfig,
    Experiment,
    LossConfig,
    OptimConfig,
    PreprocessConfig,
    TrainConfig,
)
from deeplab_jax.models import presets

config = Experiment(
    model=presets.smp_deeplabv3plus("tu-resnet50", classes=11, encoder_output_stride=16),
    data=DataConfig(root=Path("camvid"), format="camvid", workers=4),
    preprocess=PreprocessConfig(size=(360, 480)),
    augment=AugmentConfig(crop=(352, 352), scale=(0.5, 2.0)),
    loss=LossConfig(balance=True),
    optim=OptimConfig(lr=0.01, warmup=200),
    train=TrainConfig(epochs=200.0, batch_size=16, precision="bfloat16", validate_epochs=10.0),
)
