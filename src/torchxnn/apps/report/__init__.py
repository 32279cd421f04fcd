"""The HTML report of one fit: figures of merit, explained images, a sheet per x-feature."""

from torchxnn.apps.report.content import FeatureSheet, Report, SheetItem
from torchxnn.apps.report.write import write_report

__all__ = ["FeatureSheet", "Report", "SheetItem", "write_report"]
