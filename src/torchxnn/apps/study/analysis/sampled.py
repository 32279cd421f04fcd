"""What the results of every kind of study say of who is analysed."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torchxnn.apps.study.analysis.descriptives import Demographics
from torchxnn.apps.study.analysis.evidence import Evidence
from torchxnn.apps.study.analysis.exclusions import Selection
from torchxnn.apps.study.analysis.options import AnalysisOptions


@runtime_checkable
class Sampled(Protocol):
    """Results that know their participants."""

    @property
    def selection(self) -> Selection:
        """Who is analysed and who is not, and why."""
        ...

    @property
    def people(self) -> tuple[Demographics, ...]:
        """Demographics of the analysed participants."""
        ...

    @property
    def incomplete(self) -> int:
        """Analysed participants who lack a trial of their design."""
        ...


@runtime_checkable
class Analysed(Protocol):
    """Results that know how their participants acted."""

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """How everybody of the analysed kinds acted, the excluded too."""
        ...

    @property
    def options(self) -> AnalysisOptions:
        """Of the analysis."""
        ...
