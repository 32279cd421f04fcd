"""What runs on a GPU, whether it gives what the CPU gives, and how long it takes: one table.

Every row is a public path on small random networks and data, run on the device and, where its
result is a map or a fit, on the CPU too: the fourth column is the largest difference, over the
largest value. A row that fails says its error and stops nothing. Under 5 minutes on a GPU.

    python perf/gpu.py                       # on CUDA, with the networks of the speed table
    python perf/gpu.py --device mps          # on a GPU of Apple: nobody has yet
    python perf/gpu.py --device cpu --quick  # small sizes, no GPU needed
    python perf/gpu.py --device cpu --parts speed --batch 2 --networks resnet50 --threads 2
"""

from __future__ import annotations

import argparse
import copy
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torchvision
from torch import Tensor, nn

from torchxnn.attribution.excitation_backprop.method import ExcitationBackprop
from torchxnn.attribution.methods import METHODS
from torchxnn.data.activations import Activations
from torchxnn.data.positives import split_kinds
from torchxnn.embeddings.srae import SRAE
from torchxnn.errors import XNNError
from torchxnn.training.config import ComputeConfig, ConvConfig, TrainConfig
from torchxnn.training.device import fit_device
from torchxnn.training.fit import fit_embedding, fit_group
from torchxnn.training.many import fit_many
from torchxnn.training.restarts import FitResult
from torchxnn.training.slots import count_slots
from torchxnn.xnn import XNN

NETWORKS = {"vgg16": 1.5, "resnet50": 1.5, "vit_b_16": 2.5, "convnext_tiny": 2.5}
"""Networks of the speed table, and what maps may take: times forward, positive forward and one data
gradient a map."""
BATCH = 32
CERTIFICATE = 1.3
"""What a certificate may take, times the maps."""
TARGETS = list(range(5))
PARTS = ("fits", "speed", "paths")


class Table:
    """Rows of one run, printed as they come."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        print("| what | s | against | difference |\n|---|---|---|---|")

    def seconds(self, work: Callable[[], object], repeat: int = 3) -> float:
        """The fastest of some runs, the first of them not counted."""
        found = []
        for _ in range(repeat + 1):
            start = time.perf_counter()
            work()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            if self.device.type == "mps":
                torch.mps.synchronize()
            found.append(time.perf_counter() - start)
        return min(found[1:])

    def row(self, what: str, work: Callable[[], tuple[float, str, str]]) -> None:
        """One row: seconds, what they are compared with, and a difference to the CPU."""
        try:
            took, against, difference = work()
        except Exception as error:  # a row that fails is a finding
            print(f"| {what} | failed | | {type(error).__name__}: {str(error)[:120]} |")
            return
        print(f"| {what} | {took:.3f} | {against} | {difference} |", flush=True)


def difference(here: Tensor, there: Tensor) -> str:
    """The largest difference of two results over the largest value."""
    gap = float((here.cpu().double() - there.cpu().double()).abs().max())
    return f"{gap / max(float(here.abs().max()), 1e-30):.1e}"


def classes(count: int, dims: int, outputs: int) -> Activations:
    """Z >= 0 with dimensions of its own for each class, and the logits that come of them."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % outputs
    z = torch.rand(count, dims, generator=generator) * 0.3
    weight = torch.zeros(outputs, dims)
    for target in range(outputs):
        own = torch.arange(4) * 7 % dims + target
        weight[target, own % dims] = 1
        on = labels == target
        z[on] += 2 * weight[target] * (torch.rand(int(on.sum()), dims, generator=generator) + 0.3)
    return Activations(z, z @ weight.T - 2, labels)


def fits(table: Table, quick: bool) -> None:
    """Fits of one class and of several, with every setting of the device."""
    data = classes(*(240, 32, 4) if quick else (1500, 1024, 50))
    config = TrainConfig(epochs=3 if quick else 20, trials=1)
    name = str(table.device)

    def one() -> tuple[float, str, str]:
        (_, here), (_, there) = (
            fit_embedding(data, None, [1], 5, config, compute=ComputeConfig(device=device))
            for device in ("cpu", name)
        )
        losses = [torch.tensor(each.validation_losses.total) for each in (here, there)]
        return there.seconds, f"CPU {here.seconds:.2f} s", difference(*losses)

    def many(change: TrainConfig, **settings: bool) -> tuple[float, str, str]:
        start = time.perf_counter()
        compute = ComputeConfig(device=name, **settings)
        targets = range(2 if quick else 8)
        found = fit_many(data, targets, config=change, compute=compute)
        return time.perf_counter() - start, f"{len(found.classes)} classes", f"{found.failed}"

    def group(refits: int) -> tuple[float, str, str]:
        """All classes so often, in one group, with the default settings; one fit of it alone."""
        targets = [(target,) for target in range(data.n_outputs)] * refits
        seeds = [number // data.n_outputs for number in range(len(targets))]
        compute, settings = ComputeConfig(device=name), replace(config, epochs=whole)
        slots = count_slots(compute, train.to(table.device), 5, settings)
        found: dict[int, FitResult] = {}
        start = time.perf_counter()
        fit_group(train, held_out, targets, 5, settings, compute, found.__setitem__, seeds=seeds)
        took = time.perf_counter() - start
        failed = [each for each in found.values() if not isinstance(each, tuple)]
        _, there = found[1]  # type: ignore[misc]
        _, here = fit_embedding(train, held_out, [1], 5, settings)
        losses = [torch.tensor(each.validation_losses.total) for each in (here, there)]
        against = f"{len(targets)} fits, {len(failed)} failed, up to {slots} at once"
        return took, against, difference(*losses)

    mask = split_kinds(data.labels, config.validation_share, config.seed)
    train, held_out = data.select(~mask), data.select(mask)
    whole = config.epochs if quick else TrainConfig().epochs
    table.row("fit, one class", one)
    table.row(f"{data.n_outputs} classes, one group", lambda: group(1))
    table.row(f"{data.n_outputs} classes x 5 refits, one group", lambda: group(5))
    small = replace(config, subspace=16 if quick else 64, components=0.0, revive=1)
    table.row("fit_many", lambda: many(config))
    table.row("fit_many, subspace and revival", lambda: many(small))
    table.row("fit_many, relevance", lambda: many(replace(small, relevance=1.0)))
    table.row("fit_many, autocast", lambda: many(config, autocast=True))
    if not quick and table.device.type != "mps":  # where it is refused
        table.row("fit_many, compiled", lambda: many(config, compile=True))


def speed(
    table: Table, quick: bool, networks: Sequence[str] = tuple(NETWORKS), images: int = BATCH
) -> None:
    """Maps against forward passes and gradients, with a certificate, and the maps of the CPU."""
    batch, size = (2, 64) if quick else (images, 224)
    limits = {"squeezenet1_1": 2.5} if quick else {name: NETWORKS[name] for name in networks}
    for name, most in limits.items():
        torch.manual_seed(0)
        model = getattr(torchvision.models, name)().eval()
        last = [each for each in model.modules() if isinstance(each, nn.Linear)]
        if last:  # a new ViT's is 0, and its units would rest on the fallback alone
            nn.init.normal_(last[-1].weight, std=0.02)
        images = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
        maps = ExcitationBackprop(model)
        here = maps.attribute_many(images[:1], TARGETS)
        model.to(table.device)
        given = images.to(table.device)

        def run(
            given: Tensor = given, maps: ExcitationBackprop = maps, here: Tensor = here,
            model: nn.Module = model, most: float = most,
        ) -> tuple[float, str, str]:  # fmt: skip
            there = maps.attribute_many(given[:1], TARGETS)
            took = table.seconds(lambda: maps.attribute_many(given, TARGETS))
            positive = copy.deepcopy(model).requires_grad_(False)
            for parameter in positive.parameters():
                parameter.clamp_(min=0)
            bound = table.seconds(lambda: forward_and_gradients(model, positive, given))
            ratio = took / bound
            against = (
                f"{ratio:.2f} x (2 forward + {len(TARGETS)} gradients), {verdict(ratio, most)}"
            )
            return took, against, difference(here, there)

        def certified(
            given: Tensor = given, maps: ExcitationBackprop = maps
        ) -> tuple[float, str, str]:
            plain = table.seconds(lambda: maps.attribute_many(given, TARGETS))
            took = table.seconds(lambda: maps.attribute_many(given, TARGETS, True))
            _, certificate = maps.attribute_many(given, TARGETS, True)
            ratio = took / plain
            against = f"{ratio:.2f} x the maps, {verdict(ratio, CERTIFICATE)}"
            return took, against, f"conserved to {certificate.conservation_error:.1e}"

        what = f"{len(TARGETS)} c-MWP maps, {name}, batch {batch}"
        table.row(what, run)
        table.row(f"{what}, certified", certified)
        del model, maps


def verdict(ratio: float, most: float) -> str:
    """Whether a ratio is what is asked for."""
    return f"{'within' if ratio <= most else 'OVER'} {most} x"


def forward_and_gradients(model: nn.Module, positive: nn.Module, images: Tensor) -> None:
    """What maps are measured by: a forward pass, one of positive weights, and its gradients."""
    with torch.no_grad():
        model(images)
    leaf = images.clone().requires_grad_()
    outputs = positive(leaf)[:, TARGETS].sum(0)
    for output in outputs:
        torch.autograd.grad(output, leaf, retain_graph=True)


def network() -> nn.Sequential:
    """A small network with feature maps ("4") and a hidden layer ("8")."""
    torch.manual_seed(0)
    convolutions = nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.ReLU()
    rest = nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 4)
    return nn.Sequential(*convolutions, nn.MaxPool2d(2), *rest).eval()


def attached(device: str) -> XNN:
    """An XNN with random weights, the same on every device, all of whose x-features are on."""
    xnn = XNN(network().to(device), "8", 3)
    torch.manual_seed(1)
    embedding = SRAE(64, 3, 1, hidden=(16,)).eval()
    embedding.encoder[-1].bias.data.add_(0.5)
    xnn.attach_embedding(embedding, (1,), 4)
    return xnn


def paths(table: Table, quick: bool) -> None:
    """Every method, an explanation, an evaluation and a fit on maps."""
    size, count = (40, 16) if quick else (232, 64)  # MPS pools to 4 x 4 what 4 divides
    images = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))
    loader = list(zip(images.split(8), (torch.arange(count) % 4).split(8), strict=True))
    here, there = (attached(device) for device in ("cpu", str(table.device)))
    few = images[:2].to(table.device)

    for name in METHODS:

        def run(name: str = name) -> tuple[float, str, str]:
            took = table.seconds(lambda: there.attribute(few, name), 1)
            maps = here.attribute(images[:2], name), there.attribute(few, name)
            return took, "2 images", difference(*maps)

        table.row(name, run)

    def timed(work: Callable[[], object], against: str) -> Callable[[], tuple[float, str, str]]:
        return lambda: (table.seconds(work, 1), against, "")

    maps = XNN(there.model, "4", 3)
    conv = ConvConfig(channels=(16,), map_positions=16)
    short = TrainConfig(epochs=2, trials=1, conv=conv, minimum_positives=1)
    compute = ComputeConfig(device=str(table.device))
    fit = timed(lambda: maps.fit(loader, 1, config=short, compute=compute), f"{count} images")
    table.row("explain", timed(lambda: there.explain(few[0]), "1 image"))
    table.row("evaluate", timed(lambda: there.evaluate(loader), f"{count} images"))
    table.row("fit on maps", fit)


def main() -> None:
    """Run all rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--batch", type=int, default=BATCH, help="images in the speed table")
    parser.add_argument("--threads", type=int, help="of the CPU; PyTorch's own number without")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.threads:
        torch.set_num_threads(given.threads)
    try:
        table = Table(fit_device(ComputeConfig(device=given.device)))
    except XNNError as error:
        parser.error(str(error))
    if "fits" in given.parts:
        fits(table, given.quick)
    if "speed" in given.parts:
        speed(table, given.quick, given.networks, given.batch)
    if "paths" in given.parts:
        paths(table, given.quick)


if __name__ == "__main__":
    main()
