"""A small COCO export (building facades, 15 images to train on), fine-tuned from Google's MobileNetV2 for PASCAL VOC.

    deeplab convert tf model.ckpt-30000 --out voc
    deeplab train experiments/recipes/facade_mobilenet_v2.py --data.root EXPORT --init.package voc --out runs/facade

The BatchNorms of these weights are folded into the convolutions, so their statistics are the identity: they are kept,
where those of a small batch would undo what was learned.

Published: none. Measured: validation mIoU 0.3331, test 0.3046; from random weights 0.1296 and 0.1054, see RESULTS.md.
"""

from pathlib import Path

from deeplab_jax.config import AugmentConfig, DataConfig, Experiment, OptimConfig, PreprocessConfig, TrainConfig
from deeplab_jax.models import presets

config = Experiment(
    model=presets.tf_deeplab("mobilenet_v2", 1 + 10, 16, atrous_rates=(), decoder=False),
    data=DataConfig(root=Path("export"), format="coco"),
    preprocess=PreprocessConfig(size=(512, 512), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    augment=AugmentConfig(crop=(257, 257), scale=(0.5, 1.5)),
    optim=OptimConfig(optimizer="adam", lr=1e-3, weight_decay=0.0, encoder_lr_scale=0.1, freeze_norms=True),
    train=TrainConfig(steps=120, batch_size=4, validate_every=40, save_every=40),
)
