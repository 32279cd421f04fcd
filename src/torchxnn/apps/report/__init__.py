"""The HTML report of one fit: figures of merit, explained images, a sheet per x-feature."""

from torchxnn.apps.report.build import ReportConfig, build_report
from torchxnn.apps.report.content import FeatureSheet, Report, SheetItem
from torchxnn.apps.report.write import write_report

__all__ = ["FeatureSheet", "Report", "ReportConfig", "SheetItem", "build_report", "write_report"]
