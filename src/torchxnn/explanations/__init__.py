"""Numbers, words, names and drawings of one explanation.

What `XNN.explain`, `explain_text` and `explain_row` return, the contrast of two explanations, and
what people call the x-features.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
