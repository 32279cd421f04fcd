"""Explain a trained network as "A is B because of C, D and E".

An Explanation Neural Network (XNN) embeds one layer of a trained network into a few x-features that
linearly reproduce the logit, draws each as a heatmap, and measures how good the explanation is.

Example:
    >>> from torchxnn import XNN
    >>> xnn = XNN(model, layer="classifier.1")
    >>> xnn.fit(loader, target=47)
    >>> xnn.explain(image).to_html("goldfinch.html")
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
