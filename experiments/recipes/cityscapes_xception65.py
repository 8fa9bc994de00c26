"""Cityscapes, DeepLabV3+ Xception-65 at output stride 16, as Google trained it.

    deeplab convert tf model.ckpt --out imagenet                 # of a checkpoint of research/deeplab
    deeplab train experiments/recipes/cityscapes_xception65.py --data.root CITYSCAPES --init.package imagenet

Published (research/deeplab, single scale; multi-scale and flip): mIoU 78.79; 80.42. Measured: not run.
"""

from pathlib import Path

from deeplab_jax.config import AugmentConfig, DataConfig, Experiment, OptimConfig, PreprocessConfig, TrainConfig
from deeplab_jax.models import presets

config = Experiment(
    model=presets.tf_deeplab("xception_65", 19, 16),
    data=DataConfig(root=Path("cityscapes"), format="cityscapes", workers=8),
    preprocess=PreprocessConfig(size=(1024, 2048), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    augment=AugmentConfig(crop=(769, 769), scale=(0.5, 2.0)),
    optim=OptimConfig(lr=0.007, weight_decay=4e-5),
    train=TrainConfig(steps=90_000, batch_size=16, precision="bfloat16", validate_every=5000, save_every=1000),
)
