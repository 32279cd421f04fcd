"""Pages of the site from the executed notebooks, made when the site is built."""

import re
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.structure.files import File, Files

NOTEBOOKS = Path(__file__).parent.parent / "examples" / "notebooks"
_LINK = re.compile(r"\]\((?:\.\./\.\./docs/([\w/]+\.md)|(\w+)\.ipynb)")


def on_files(files: Files, config: Any) -> Files:
    """Add a page for each notebook, `notebooks/NAME.md`."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        text = page_of(nbformat.read(path, as_version=4))
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
    return files


def page_of(book: Any) -> str:
    """A notebook as Markdown: prose, code, what was printed, and pictures.

    Links to pages of the documentation and to other notebooks lead to their pages on the site.
    """
    parts = []
    for cell in book.cells:
        if cell.cell_type == "markdown":
            parts.append(_LINK.sub(_on_the_site, cell.source))
            continue
        parts.append(_fenced(cell.source, "python"))
        parts += [_shown(output) for output in cell.outputs]
    return "\n\n".join(parts) + "\n"


def _on_the_site(link: re.Match[str]) -> str:
    return f"](../{link[1]}" if link[1] else f"]({link[2]}.md"


def _shown(output: Any) -> str:
    if output.output_type == "stream":
        return _fenced(output.text.strip("\n"), "text")
    if "text/html" in output.data:
        lines = (line.strip() for line in output.data["text/html"].splitlines())
        return "\n".join(line for line in lines if line)  # an empty line would end the block
    if "image/jpeg" in output.data:
        picture = output.data["image/jpeg"].replace("\n", "")
        return f'<img alt="What the cell above draws" src="data:image/jpeg;base64,{picture}">'
    return _fenced(output.data["text/plain"], "text")


def _fenced(text: str, language: str) -> str:
    return f"```{language}\n{text}\n```"
