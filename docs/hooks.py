"""What is changed on the pages when the site is built: no script, no network.

TeX becomes MathML, and a picture with the paragraph in italics below it a figure with a caption.
"""

import html
import re
from typing import Any

from latex2mathml.converter import convert

_BLOCK = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.DOTALL)
_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_FIGURE = re.compile(r"<p>(<img [^>]*>)</p>\s*<p><em>((?:(?!</p>).)*)</em></p>", re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Replace what the arithmatex extension marked, and pictures that have a caption."""
    content = _BLOCK.sub(lambda m: convert(html.unescape(m[1]), display="block"), content)
    content = _INLINE.sub(lambda m: convert(html.unescape(m[1])), content)
    return _FIGURE.sub(r"<figure>\1<figcaption>\2</figcaption></figure>", content)
