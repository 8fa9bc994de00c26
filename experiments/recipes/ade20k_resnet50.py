"""ADE20K, DeepLabV3+ ResNet-50 at output stride 8.

    deeplab convert timm resnet50.safetensors --encoder tu-resnet50 --out imagenet
    deeplab train experiments/recipes/ade20k_resnet50.py --data.root ADEChallengeData2016 --init.package imagenet

Published (mmsegmentation, multi-scale and flip): mIoU 43.95. Measured: not run.
"""

from pathlib import Path

from deeplab_jax.config import AugmentConfig, DataConfig, Experiment, OptimConfig, PreprocessConfig, TrainConfig
from deeplab_jax.models import presets

config = Experiment(
    model=presets.smp_deeplabv3plus("tu-resnet50", classes=150, encoder_output_stride=8),
    data=DataConfig(root=Path("ADEChallengeData2016"), format="ade20k", workers=8),
    preprocess=PreprocessConfig(size=(512, 683)),
    augment=AugmentConfig(crop=(512, 512), scale=(0.5, 2.0)),
    optim=OptimConfig(lr=0.01),
    train=TrainConfig(steps=160_000, batch_size=16, precision="bfloat16", validate_every=8000, save_every=2000),
)
