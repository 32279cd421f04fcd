"""Class names as data sets write them, as people say them, and as they are compared."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

_SORTING = re.compile(
    r"(?:^\d+\.[._ -]*|^0\d+[_ -]+|\b\d{1,5}\.)(?=[^\W\d])"  # "101.head-phones", "04_cat"
    r"|(?:^\d+_+|^\d{2,} +)(?=[A-Z])"  # "4_Dove", "14 Indigo Bunting"; not "4_door", "5 stars"
)
"""A number that sorts the folders of a data set, and not one that belongs to the name."""


def spoken(text: str, among: Sequence[str] | None = None) -> str:
    """A class name, or a text with class names in it, as people say it.

    Numbers that sort the folders of a data set and underscores are left out:
    "048.European_Goldfinch" is "European Goldfinch". A number that can be part of the name stays:
    "4 door", "5 stars".

    Args:
        text: to say.
        among: all class names, if they are known; a name that another one would be spoken like
            stays as it is.
    """
    if among and text in _confused(tuple(among)):
        return text
    return _SORTING.sub("", text).replace("_", " ").strip() or text


def spoken_all(names: Sequence[str]) -> tuple[str, ...]:
    """Class names as people say them; those that would be said alike stay as they are."""
    return tuple(spoken(name, names) for name in names)


@lru_cache(maxsize=8)
def _confused(names: tuple[str, ...]) -> frozenset[str]:
    """The names that are spoken like another one."""
    different = set(names)
    often = Counter(map(spoken, different))
    return frozenset(name for name in different if often[spoken(name)] > 1)


def comparable(name: str) -> str:
    """A class name without what data sets write in different ways.

    Case and whether words are joined by blanks, hyphens, slashes or underscores do not count; the
    letter folder of Places365 ("/k/kitchen") is dropped.
    """
    name = re.sub(r"^/[a-z]/", "", name.strip().casefold())
    return re.sub(r"[\s/_-]+", "_", name).strip("_")
