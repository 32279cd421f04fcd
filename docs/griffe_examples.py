"""Show the section "Example:" of docstrings as code; the parser knows "Examples:" alone."""

from typing import Any

from griffe import Extension, Object


class Examples(Extension):
    """Read docstrings as if they said "Examples:"."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
