"""The run whose x-features are named: what requests read and write."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse

from torchxnn.apps.address import Address
from torchxnn.apps.naming.gather import Gallery
from torchxnn.apps.web import page_templates, version_of
from torchxnn.explanations.drawing.overlay import number
from torchxnn.explanations.names.file import read_names, write_names
from torchxnn.explanations.names.judgements import FeatureNames
from torchxnn.metrics.agreement import krippendorff_alpha

WEB = Path(__file__).parent / "web"
STATIC = WEB / "static"


@dataclass(eq=False)
class Site:
    """One run that is being named.

    Attributes:
        run: folder of the saved XNN; `names.json` is written there.
        embedding: checksum of its weights.
        title: what it explains.
        gallery: the images.
        who: the person, unless somebody gives another name on the page; empty asks there.
        token: proves that a form comes from this page and not from another site.
    """

    run: Path
    embedding: str
    title: str
    gallery: Gallery
    who: str = ""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))

    @property
    def n_features(self) -> int:
        """Number of x-features."""
        return len(self.gallery.features)

    @cached_property
    def version(self) -> str:
        """Changes with the images and the style."""
        return version_of(STATIC, self.gallery.files)

    def names(self) -> FeatureNames:
        """All records, read anew: another server may have written meanwhile."""
        return read_names(self.run, self.embedding, self.n_features)

    def write(self, names: FeatureNames) -> None:
        """Add records to the file; it is on disk when this returns."""
        write_names(self.run, names, self.embedding)

    def known(self, names: FeatureNames, who: str) -> str:
        """What was said under a name so far, for who signs with it; "" if nothing was.

        Args:
            names: all records.
            who: the person.
        """
        said = [j for j in names.judgements if names.person(j.who) == who]
        if not said:
            return ""
        last = said[-1].when[:16].replace("T", " ")
        about = len({j.feature for j in said})
        return f"{about} of {self.n_features} x-features, last on {last} UTC"

    def progress(self, names: FeatureNames, who: str, index: int = -1) -> dict[str, Any]:
        """What a person has still to judge.

        Args:
            names: all records.
            who: the person.
            index: 0-based x-feature at which the person is.

        Returns:
            `open`, the numbers (from 1) of the x-features that are left, and `next`, the one that
            comes first after that at which the person is; 0 if none but this one is left.
        """
        left = [i for i in range(self.n_features) if who not in names.latest(i)]
        others = [i for i in left if i != index]
        following = min(others, key=lambda i: (i < index, i), default=-1)
        return {"open": [i + 1 for i in left], "next": following + 1}

    @property
    def cookie(self) -> str:
        """Name of the cookie with the person; that of another run on the same host has another."""
        return f"xnn_name_{self.embedding[:8]}"

    def page(
        self, template: str, address: Address, status: int = 200, **values: Any
    ) -> HTMLResponse:
        """Render a page."""
        values = {
            "root": address.root,
            "title": self.title,
            "version": self.version,
            "token": self.token,
            **values,
        }
        page = page_templates(WEB / "templates", trim=True).get_template(template)
        return HTMLResponse(page.render(values), status)


def agreement_text(names: FeatureNames) -> str:
    """Krippendorff's alpha in words, with what it is made of."""
    found = krippendorff_alpha(names.opinions())
    if found.units == 0:
        return "Agreement: no x-feature has judgements of two people yet."
    size = (
        f"{found.units} x-feature(s) that at least two people judged, {found.judgements} "
        f"judgements of {found.people} people"
    )
    if found.alpha != found.alpha:
        return f"Agreement: all gave the same name, so alpha is not defined ({size})."
    return (
        f"Agreement: Krippendorff's alpha is {number(found.alpha)} (1 is full agreement, 0 is "
        f"chance; {size})."
    )
