"""Other people's concept methods in the table of ground truth, on the same activations.

Where a method has a package that runs here it is used; where it has none, what the paper says is
done with scikit-learn and PyTorch, under a name that says so. Those that look at one class at a
time are fitted to its images, as their papers do. Nothing below is copied from the packages.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from functools import cache
from importlib import import_module
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from torchxnn.apps.benchmark.contenders import Case, Contender, Found
from torchxnn.embeddings.base import Embedding
from torchxnn.embeddings.concepts import check_activations, import_sklearn
from torchxnn.embeddings.dimensions import select_dimensions
from torchxnn.embeddings.directions import as_directions
from torchxnn.embeddings.linear import deviation
from torchxnn.embeddings.nmf import fit_nmf
from torchxnn.embeddings.topk_sae import TopKSAE
from torchxnn.errors import DataError, XNNError

DESIGNS = 32
"""Points of each of the two designs that the Sobol indices of an image rest on, as in CRAFT."""

IMAGES_AT_ONCE = 16

STEPS = 1000
"""Least number of steps in the training of a dictionary; with few images, an epoch is one step."""

BATCH = 64
LEARNING_RATE = 1e-3

MISSING = {
    "CRAFT (Craft-xai 0.0.3)": "MIT, but its PyTorch part imports TensorFlow",
    "CRAFT (Xplique 2.0.2)": "MIT, but it imports TensorFlow and needs torch 2.10 or older",
    "CRP (zennit-crp 0.6.0)": "grants no patent licence, and rests on zennit, which is LGPL",
}
"""Packages that were looked at and are not used, and why; the table prints it."""


def fit_class_nmf(case: Case) -> Found:
    """Non-negative factors of the class's activations, with Sobol indices, as CRAFT defines them.

    Fel et al. 2023, CRAFT (arXiv 2211.10154), sections 3.1 and 3.3. CRAFT factorises activations of
    crops; here they are those of whole images, as for all others.
    """
    embedding = fit_nmf(case.own, case.n_features, seed=case.config.seed)
    codes = embedding.encode(case.own)
    return Found(case.read(embedding), sobol_importance(embedding, codes, case))


@torch.no_grad()
def sobol_importance(
    embedding: Embedding, codes: Float[Tensor, "images features"], case: Case
) -> Float[Tensor, " features"]:
    r"""Total Sobol index of each concept for the logit, averaged over images; higher matters more.

    Concepts of an image are multiplied by factors f in [0, 1], decoded, and sent through the rest
    of the network. With designs A and B of J points, and A with column l from B as
    :math:`A^{(l)}` (Jansen 1999, Analysis of variance designs for model output),

    .. math:: S_l=\frac{\frac1{2J}\sum_j(y(A_j)-y(A^{(l)}_j))^2}{\mathrm{Var}_j\,y(A_j)}

    An image whose logit does not vary counts as 0 for every concept.

    Args:
        embedding: its `decode` gives Z.
        codes: concepts of the images, (B, n).
        case: the class, with the rest of the network and the seed of the designs.
    """
    count = codes.shape[1]
    engine = torch.quasirandom.SobolEngine(2 * count, scramble=True, seed=case.config.seed)
    a, b = engine.draw(DESIGNS).split(count, 1)
    own = torch.eye(count).bool().unsqueeze(1)
    masks = torch.cat([a.unsqueeze(0), torch.where(own, b, a)])
    found = []
    for part in codes.split(IMAGES_AT_ONCE):
        masked = part[:, None, None, :] * masks.to(part)
        logits = case.head(embedding.decode(masked.flatten(0, 2)))[:, case.target]
        y = logits.double().unflatten(0, masked.shape[:3])
        change = (y[:, :1] - y[:, 1:]).square().mean(2) / 2
        variance = y[:, 0].var(1, keepdim=True)
        found.append(torch.where(variance > 0, change / variance, 0.0))
    return torch.cat(found).mean(0)


def fit_overcomplete(case: Case, archetypal: bool) -> Found:
    """A top-k sparse autoencoder of the package overcomplete, fitted to the class's activations.

    Args:
        case: the class.
        archetypal: whether concepts are convex combinations of activations, relaxed (RA-SAE: Fel et
            al. 2025, Archetypal SAE, arXiv 2502.12892); else as in Gao et al. 2024
            (arXiv 2406.04093).

    Raises:
        XNNError: the package is not installed, or cannot be imported.
    """
    sae, (n, dims) = _overcomplete(), (case.n_features, case.data.train.z.shape[1])
    check_activations(case.own, n)
    scale = deviation(case.own)
    z = case.own / scale
    top_k = (n + 1) // 2
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(case.config.seed)
        if archetypal:
            order = torch.randperm(len(z))  # concepts start as the first of the points
            model = sae.RATopKSAE(dims, n, points=z[order], top_k=top_k)
        else:
            model = sae.TopKSAE(dims, n, top_k=top_k)
        loader = DataLoader(TensorDataset(z), BATCH, shuffle=True, drop_last=len(z) > BATCH)
        optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
        epochs = -(-STEPS // len(loader))
        sae.train_sae(model, loader, _squared_error, optimizer, nb_epochs=epochs, monitoring=0)
    return Found(case.read(_as_ours(model.eval(), scale, top_k)))


def _squared_error(z: Tensor, decoded: Tensor, *_: Tensor) -> Tensor:
    return (z - decoded).square().mean()


@torch.no_grad()
def _as_ours(model: Any, scale: Tensor, top_k: int) -> TopKSAE:
    """The same function of Z, codes in units of Z."""
    linear = model.encoder.final_block[0]  # followed by nothing but a ReLU
    dictionary = model.get_dictionary()
    embedding = TopKSAE(dictionary.shape[1], len(dictionary), top_k=top_k)
    embedding.encoder.weight.copy_(linear.weight)
    embedding.encoder.bias.copy_(linear.bias * scale)
    embedding.decoder.weight.copy_(dictionary.mT)
    embedding.decoder.bias.zero_()
    return embedding.eval()


@cache
def _overcomplete() -> Any:
    """Its autoencoders alone: the package itself imports what matplotlib no longer has."""
    spec = importlib.util.find_spec("overcomplete")
    try:
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError("No module named 'overcomplete'")
        package = types.ModuleType("overcomplete")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["overcomplete"] = package
        return import_module("overcomplete.sae")
    except (ImportError, AttributeError) as error:
        raise XNNError(
            f"this method needs the package overcomplete ({error}): pip install 'torchxnn[peers]', "
            "then pip install --no-deps overcomplete, since with its dependencies it brings a "
            "second OpenCV"
        ) from error
    finally:
        sys.modules.pop("overcomplete", None)


def fit_concept_vectors(case: Case) -> Found:
    """Directions of linear classifiers that tell images with a part from those without it.

    Kim et al. 2018, TCAV (arXiv 1711.11279): the normal of the classifier's plane is the concept;
    its own importance is the sensitivity of eq. 1, the derivative of the logit along it, averaged
    over the class's images. The labels are those of the parts.

    Raises:
        DataError: a part is visible in all training images, or in none.
        XNNError: scikit-learn is not installed.
    """
    z, visible = case.data.train.z, case.visible
    constant = (visible.all(0) | ~visible.any(0)).nonzero().flatten().tolist()
    if constant:
        raise DataError(
            f"part {constant[0]} is visible in all or in none of the training images of class "
            f"{case.target}, so no classifier can tell it; fit to images with and without each "
            "part"
        )
    scale = deviation(z)
    inputs = (z / scale).cpu().numpy()
    classifier = import_sklearn("linear_model").LogisticRegression
    rows = []
    for part in visible.mT.cpu().numpy():
        fitted = classifier(class_weight="balanced", max_iter=1000).fit(inputs, part)
        rows.append(torch.from_numpy(fitted.coef_[0]).to(z))
    weight = torch.nn.functional.normalize(torch.stack(rows), dim=1)
    embedding = as_directions(weight, torch.zeros(len(weight)), z)
    return Found(case.read(embedding), weight @ _gradient(case).mean(0))


def fit_relevant_units(case: Case) -> Found:
    r"""The units of the layer with the largest relevance :math:`z_j\,\partial y/\partial z_j`.

    Their mean over the positives is what counts. As in concept relevance propagation (Achtibat et
    al. 2023, arXiv 2206.03208), whose concepts are the units of a layer with the largest relevance;
    above this layer, layer-wise relevance propagation with its basic rule is the product of
    activation and gradient. Its package is not used, see `MISSING`.
    """
    relevance = (case.own * _gradient(case)).mean(0)
    index = relevance.argsort(descending=True, stable=True)[: case.n_features]
    return Found(case.read(select_dimensions(case.data.train.z, index)), relevance[index])


def _gradient(case: Case) -> Float[Tensor, "positives dims"]:
    """Derivative of the logit with respect to Z, on the positives."""
    with torch.enable_grad():
        z = case.own.requires_grad_()
        return torch.autograd.grad(case.head(z)[:, case.target].sum(), z)[0]


PEERS: dict[str, Contender] = {
    "NMF of the class": Contender(
        fit_class_nmf,
        "As CRAFT: non-negative factors of the activations of the class's images (scikit-learn), "
        "of whole images instead of crops; importance: total Sobol indices.",
        needs=lambda: import_sklearn("decomposition"),
    ),
    "TopK-SAE of the class": Contender(
        lambda case: fit_overcomplete(case, archetypal=False),
        "The top-k sparse autoencoder of the package overcomplete 0.3.0 (MIT), on the class's "
        "images.",
        needs=_overcomplete,
    ),
    "RA-SAE": Contender(
        lambda case: fit_overcomplete(case, archetypal=True),
        "The relaxed archetypal top-k autoencoder of overcomplete 0.3.0 (MIT), on the class's "
        "images.",
        needs=_overcomplete,
    ),
    "TCAV": Contender(
        fit_concept_vectors,
        "Directions of linear classifiers of whether a part is visible (scikit-learn); importance: "
        "mean derivative of the logit.",
        labels=True,
        needs=lambda: import_sklearn("linear_model"),
    ),
    "most relevant units": Contender(
        fit_relevant_units,
        "As CRP: the units of the layer with the largest relevance for the class, here activation "
        "times gradient.",
    ),
}
"""Concept methods of others: name -> contender."""
