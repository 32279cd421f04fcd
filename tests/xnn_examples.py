"""Quick fits to the small images of `conftest`."""

import warnings

from conftest import make_images
from torchxnn import DegenerateFitWarning, TrainConfig

QUICK = TrainConfig(hidden=(16,), epochs=15, batch_size=32, pretrain_epochs=2, trials=1)


def quick_fit(xnn, loader, target, config=QUICK, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateFitWarning)
        return xnn.fit(loader, target, config=config, **settings)


def make_loader(count=96, seed=0, labels=True):
    images, kinds = make_images(count, seed)
    parts = zip(images.split(16), kinds.split(16), strict=True)
    return [(x, y) if labels else x for x, y in parts]
