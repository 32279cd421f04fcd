"""Fast settings of the benchmark."""

from torchxnn.apps.benchmark.settings import BenchmarkConfig
from torchxnn.training.config import TrainConfig

TRAIN = TrainConfig(
    hidden=(12, 8), epochs=3, patience=3, pretrain_epochs=1, trials=1, minimum_positives=2
)
CONFIG = BenchmarkConfig(
    n_features=3,
    copies=1,
    z_dimensions=4,
    integrated_images=2,
    integrated_steps=2,
    kept=(50, 100),
    train=TRAIN,
)
