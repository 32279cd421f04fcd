from .base import Reasons
from .contrast import Contrast, contrast
from .drawing.canvas import save_figure
from .image import Explanation
from .maps import default_method
from .names.adopt import Adoption, Match
from .names.judgements import FeatureNames, Settled
from .names.records import Judgement
from .saved_result import SavedResult
from .sentences import Account
from .text_table import TableExplanation, TextExplanation
from .volume import VolumeExplanation

__all__ = [
    "Account",
    "Adoption",
    "Contrast",
    "Explanation",
    "FeatureNames",
    "Judgement",
    "Match",
    "Reasons",
    "SavedResult",
    "Settled",
    "TableExplanation",
    "TextExplanation",
    "VolumeExplanation",
    "contrast",
    "default_method",
    "save_figure",
]
