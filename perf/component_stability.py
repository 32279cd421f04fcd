"""How stable the start of a fit can be: more altered copies, more images of the class.

Independent components (`find_components`) of bootstrap samples are matched on test images of the
class, the logit taken out, signed. No fit is made. Run from the repository, for example:

    python perf/component_stability.py --root CUB --weights cub50_squeezenet.safetensors
    python perf/component_stability.py --data funnybirds --root FunnyBirds \
        --weights funnybirds_lite2.safetensors --positives 15 30 60 --copies 0

It prints, for every number of copies and of images, the matched correlation and that of shuffled
images, means over the classes and pairs of samples.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from torchxnn.apps.benchmark.settings import BUNDLED
from torchxnn.apps.benchmark.tasks import TASKS, Task, TaskSource
from torchxnn.data.activations import Activations
from torchxnn.data.datasets.augment import AugmentedImages
from torchxnn.data.datasets.base import ImageDataset, ImageSubset, make_loader
from torchxnn.data.record import record_activations
from torchxnn.embeddings.components import find_components, read_logits
from torchxnn.embeddings.matching import partial_out
from torchxnn.metrics.stability import measure_stability

LITE = "torchxnn.models.bundled:efficientnet_lite2_with_head"
SAMPLES = 3


def record(task: Task, dataset: ImageDataset) -> Activations:
    """Z and logits of some images."""
    return record_activations(task.model, task.source.layer, make_loader(dataset))


def of_samples(
    train: Activations, own: Tensor, z: Tensor, test: Activations, target: int, n: int
) -> list[Tensor]:
    """Components of bootstrap samples on the test images of the class, the logit taken out.

    Args:
        train: what the logits are read from.
        own: rows of the class there.
        z: Z of each of these rows and of its copies, (copies + 1, P, S_z).
        test: images of the class.
        target: the class.
        n: components.
    """
    found = []
    for seed in range(SAMPLES):
        generator = torch.Generator().manual_seed(1000 * target + seed)
        rows = torch.randint(len(train), (len(train),), generator=generator)
        readout = read_logits(train.z[rows], train.logits[rows])
        drawn = z[:, torch.randint(len(own), (len(own),), generator=generator)].flatten(0, 1)
        every = torch.ones(len(drawn), dtype=torch.bool)
        components = find_components(drawn, readout, target, every, n, seed)
        values = components.contributions(test.z).float()
        found.append(partial_out(values, test.logits[:, target]))
    return found


def main(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    model = LITE if arguments.data == "funnybirds" else BUNDLED
    source = TaskSource(arguments.data, arguments.root, arguments.weights, model, "classifier.1")
    task = TASKS[arguments.data](source)
    train, labels = record(task, task.train), torch.tensor(task.train.labels)
    figures: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for target in arguments.classes or range(4, len(task.classes), 5):
        every = (labels == target).nonzero().flatten()
        shown = [row for row, label in enumerate(task.test.labels or ()) if label == target]
        test = record(task, ImageSubset(task.test, shown))
        for count in arguments.positives:
            shuffled = every[torch.randperm(len(every), generator=torch.Generator().manual_seed(0))]
            own = shuffled[: count or len(every)]
            for copies in arguments.copies:
                images: ImageDataset = ImageSubset(task.train, own.tolist())
                if copies:
                    images = AugmentedImages(images, copies)
                z = record(task, images).z.unflatten(0, (copies + 1, len(own)))
                samples = of_samples(train, own, z, test, target, arguments.n_features)
                found = measure_stability(samples)
                figures.setdefault((count, copies), []).append((found.value, found.chance or 0.0))
        for (count, copies), rows in figures.items():
            value, chance = (sum(each) / len(rows) for each in zip(*rows, strict=True))
            images_of = f"{count} images" if count else "all images"
            print(
                f"{images_of}, {copies} copies: {value:.3f}, shuffled {chance:.3f}, "
                f"{len(rows)} classes, {SAMPLES * (SAMPLES - 1) // 2} pairs each",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=["cub", "funnybirds"], default="cub")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--classes", type=int, nargs="*", help="all of every five by default")
    parser.add_argument("--copies", type=int, nargs="*", default=[0, 4, 16])
    parser.add_argument("--positives", type=int, nargs="*", default=[0], help="0 for all")
    parser.add_argument("--n-features", type=int, default=5)
    main(parser.parse_args())
