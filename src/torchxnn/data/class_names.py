"""Class names as data sets write them, as people say them, and as they are compared."""

import re


def spoken(text: str) -> str:
    """A class name, or a text with class names in it, as people say it.

    Numbers that sort the folders of a data set and underscores are left out:
    "048.European_Goldfinch" is "European Goldfinch".
    """
    plain = re.sub(r"(?:^\d+[._ -]+|\b\d{1,5}\.)(?=[^\W\d])", "", text)
    return plain.replace("_", " ").strip() or text


def comparable(name: str) -> str:
    """A class name without what data sets write in different ways.

    Case and whether words are joined by blanks, hyphens, slashes or underscores do not count; the
    letter folder of Places365 ("/k/kitchen") is dropped.
    """
    name = re.sub(r"^/[a-z]/", "", name.strip().casefold())
    return re.sub(r"[\s/_-]+", "_", name).strip("_")
