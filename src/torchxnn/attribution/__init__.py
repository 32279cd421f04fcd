"""Attribution methods: from a module, images and a target to heatmaps.

`METHODS` maps the names that users pass to the classes; a new method is one file and one line
there. Texts and rows are shown to the same methods by `attribute_tokens` and `attribute_rows`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
