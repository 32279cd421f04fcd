"""What a report holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Real, UInt8

from torchxnn.explanations.certificate import worst_certificate
from torchxnn.explanations.image import Explanation
from torchxnn.explanations.known import KnownReason
from torchxnn.explanations.volume import VolumeExplanation
from torchxnn.metrics.evaluation import Evaluation
from torchxnn.metrics.faithfulness import Faithfulness
from torchxnn.metrics.orthogonality import Orthogonality
from torchxnn.models.label_agreement import LabelAgreement
from torchxnn.training.report import FitReport


@dataclass(frozen=True, eq=False)
class SheetItem:
    """One image on which an x-feature is active; of a volume some of its slices, side by side.

    Attributes:
        image: (H, W, 3) uint8.
        heatmap: (H, W), the x-feature's signed relevance on it.
        activation: E of the x-feature.
        contribution: to the logit of the target that the x-feature matters most for.
        caption: for people, such as the file's name or its class.
        strength: how much of the relevance the heatmap holds, in words.
        slices: of a volume, which slices are shown, in words.
    """

    image: UInt8[np.ndarray, "height width 3"]
    heatmap: Real[np.ndarray, "height width"]
    activation: float
    contribution: float
    caption: str
    strength: str = ""
    slices: str = ""


@dataclass(frozen=True, eq=False)
class FeatureSheet:
    """The images that activate one x-feature most.

    Attributes:
        index: 0-based x-feature.
        name: "x-feature 1", or what somebody named it.
        share: its mean share of the contributions' sizes over the positives, a fraction.
        items: by decreasing activation.
    """

    index: int
    name: str
    share: float
    items: tuple[SheetItem, ...]


@dataclass(frozen=True, eq=False)
class Report:
    """Everything that `write_report` puts on the page.

    Attributes:
        title: of the page.
        subtitle: one sentence below it; may be empty.
        model_name: the explained network.
        layer: the layer that the x-features embed.
        targets: names of the explained classes, in the order of `fit.targets`.
        fit: the fit, with its figures on training and held-out images.
        evaluation: the figures on test images that neither fitted nor stopped the fit.
        explanations: the explained images.
        sheets: one per x-feature; drawn by decreasing share.
        known: what the logit is known to be made of, and what the x-features found of it.
        reasons: what the logit is known to be made of, each beside what was found of it.
        in_images: of each explained image what is known to add to the logit, (name, logits); empty
            if nothing is known.
        remarks: what is odd about it, and what one would do next.
        notes: what readers must know, such as the licence of the images.
        orthogonality: of the heatmaps of the class's images on the page; None if it shows none.
        noun: what is explained: "class", "label" or "value".
        provenance: further (term, text) pairs, such as the data set or the model's fingerprint.
        unit: what is explained, "image" or "volume".
        card: (kind, name) of the files beside the page that hold the card of the XNN.
        on_maps: whether the layer gives maps, which some settings of a fit are for.
        positives_by: what made an image of the test a positive; see `positives_of`.
        agreement: how often the network predicts the labels of the test images; None if nobody
            knows.
    """

    title: str
    subtitle: str
    model_name: str
    layer: str
    targets: tuple[str, ...]
    fit: FitReport
    evaluation: Faithfulness | None
    explanations: tuple[Explanation | VolumeExplanation, ...]
    sheets: tuple[FeatureSheet, ...]
    known: tuple[str, ...] = ()
    reasons: tuple[KnownReason, ...] = ()
    in_images: tuple[tuple[tuple[str, float], ...], ...] = ()
    remarks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    provenance: tuple[tuple[str, str], ...] = ()
    orthogonality: Orthogonality | None = None
    noun: str = "class"
    unit: str = "image"
    card: tuple[tuple[str, str], ...] = ()
    on_maps: bool = False
    positives_by: str = ""
    agreement: LabelAgreement | None = None

    @property
    def of_what(self) -> str:
        """Which images are positives: "of the class", "of the label", "with high values"."""
        return "with high values" if self.noun == "value" else f"of the {self.noun}"

    def measured(self, weights_sha256: str = "") -> Evaluation | None:
        """What the page says of its test images, for the card of the same XNN; None without any.

        The maps are those of the page, and the certificate is the worst of the explained images.

        Args:
            weights_sha256: of the saved XNN.
        """
        if self.evaluation is None:
            return None
        certificates = [each.certificate for each in self.explanations]
        return Evaluation(
            self.evaluation,
            self.orthogonality,
            worst_certificate(certificates) if certificates else None,
            self.positives_by,
            self.agreement,
            weights_sha256,
        )
