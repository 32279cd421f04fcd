from .build import build_report
from .config import ReportConfig
from .content import FeatureSheet, Report, SheetItem
from .write import write_report

__all__ = ["FeatureSheet", "Report", "ReportConfig", "SheetItem", "build_report", "write_report"]
