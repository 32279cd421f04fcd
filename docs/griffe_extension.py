"""How the reference reads the package: examples, formulas, methods that are functions of a room."""

import re
from copy import copy
from typing import Any

from griffe import Class, Extension, Function, GriffeLoader, Object


class Docstrings(Extension):
    """Read "Example:" as "Examples:", which the parser knows, and :math:`x` as a formula."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring is not None:
            text = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
            obj.docstring.value = re.sub(r":math:`([^`]+)`", r"\\(\1\\)", text)


class BoundFunctions(Extension):
    """Show `explain = functions.explain_image` in a class as the method that it is."""

    def on_package(self, *, pkg: Object, loader: GriffeLoader, **_: Any) -> None:
        """Called once the whole package is read."""
        for module in (pkg, *pkg.modules.values()):
            for owner in module.classes.values():
                if isinstance(owner, Class):
                    _bind(owner, loader)


def _bind(owner: Class, loader: GriffeLoader) -> None:
    for name, attribute in list(owner.attributes.items()):
        path = getattr(attribute.value, "canonical_path", "")
        found = None
        if path.startswith("torchxnn."):
            try:
                found = loader.modules_collection[path]
            except KeyError:
                continue
        if isinstance(found, Function):
            method = copy(found)
            method.name, method.parent = name, owner
            owner.members[name] = method
