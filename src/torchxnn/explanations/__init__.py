"""Numbers, words, names and drawings of one explanation.

What `XNN.explain`, `explain_text` and `explain_row` return, the contrast of two explanations, and
what people call the x-features.
"""

from torchxnn.explanations.base import Reasons
from torchxnn.explanations.contrast import Contrast, contrast
from torchxnn.explanations.drawing.canvas import save_figure
from torchxnn.explanations.image import Explanation
from torchxnn.explanations.maps import default_method
from torchxnn.explanations.names.adopt import Adoption, Match
from torchxnn.explanations.names.judgements import FeatureNames, Judgement, Settled
from torchxnn.explanations.saved_result import SavedResult
from torchxnn.explanations.sentences import Account
from torchxnn.explanations.text_table import TableExplanation, TextExplanation
from torchxnn.explanations.volume import VolumeExplanation

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
