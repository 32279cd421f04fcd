"""Turn the pages' TeX into MathML when the site is built: no script, no network."""

import html
import re
from typing import Any

from latex2mathml.converter import convert

_BLOCK = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.DOTALL)
_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Replace what the arithmatex extension marked."""
    content = _BLOCK.sub(lambda m: convert(html.unescape(m[1]), display="block"), content)
    return _INLINE.sub(lambda m: convert(html.unescape(m[1])), content)
