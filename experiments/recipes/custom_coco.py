"""Images of your own in COCO's format (such as Roboflow's export): three classes, background, Adam, early stopping.

    deeplab data check --data.root EXPORT --data.format coco
    deeplab train experiments/recipes/custom_coco.py --data.root EXPORT --init.package PACKAGE

PACKAGE is a converted DeepLab or ImageNet encoder of any library (README, Port weights); set `model` to its network.
Published: none, the data are yours. Measured: not run.
"""

from pathlib import Path

from deeplab_jax.config import AugmentConfig, DataConfig, Experiment, OptimConfig, PreprocessConfig, TrainConfig
from deeplab_jax.models import presets

config = Experiment(
    model=presets.smp_deeplabv3plus("resnet50", classes=1 + 3, encoder_output_stride=16),
    data=DataConfig(root=Path("export"), format="coco"),
    preprocess=PreprocessConfig(size=(513, 513)),
    augment=AugmentConfig(crop=(513, 513), scale=(0.5, 2.0), rotation=10.0, hue=0.05),
    optim=OptimConfig(optimizer="adam", lr=1e-4, weight_decay=0.0),
    train=TrainConfig(epochs=100.0, batch_size=8, validate_epochs=1.0, best_by="loss", patience=10),
)
