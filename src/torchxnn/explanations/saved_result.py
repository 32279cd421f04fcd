"""Results that draw themselves, and that a folder keeps so that they come back as they were."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, final
from zipfile import BadZipFile
from zlib import error as ZlibError

from torchxnn.errors import DataError, XNNError
from torchxnn.storage.artifact import Format
from torchxnn.storage.files import replace_file, replace_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DAMAGE = (
    *(LookupError, TypeError, ValueError, AttributeError, OSError, EOFError, NotImplementedError),
    *(BadZipFile, ZlibError, TokenError),
)
"""What NumPy and `zipfile` raise for a damaged archive, and a constructor for what is no value."""

Saved = TypeVar("Saved", bound="SavedResult")


class SavedResult(ABC):
    """An explanation, a contrast, or what else is drawn as a figure and as a page, and kept.

    Attributes:
        stem: Name of its JSON file and of its page without their endings, such as "explanation".
        format: Head of the JSON file.
    """

    stem: ClassVar[str]
    format: ClassVar[Format]

    @abstractmethod
    def plot(self, *arguments: Any, **options: Any) -> Figure:
        """Draw the figure, which belongs to no window: use its `savefig`, or `save_figure`."""

    @abstractmethod
    def _page(self) -> bytes:
        """One self-contained HTML page."""

    @abstractmethod
    def _write(self, folder: Path) -> tuple[dict[str, Any], bytes, Figure]:
        """Write tensors and images into a folder.

        Returns:
            The values of the JSON file, the page, and the figure.
        """

    @classmethod
    @abstractmethod
    def _read(cls: type[Saved], folder: Path, record: dict[str, Any]) -> Saved:
        """Make it anew from a folder and the values of its JSON file."""

    @final
    def save_figure(self, file: Path | str, **options: Any) -> None:
        """Write the figure as PNG, PDF or SVG by the file's ending; options as for `plot`.

        In a PDF or SVG text stays text.

        Raises:
            DataError: The file name has another ending.
            OSError: The file cannot be written.

        Example:
            >>> explanation.save_figure("goldfinch.pdf", style="paper")
        """
        from torchxnn.explanations.drawing.canvas import save_figure

        save_figure(self.plot(**options), file)

    @final
    def to_html(self, file: Path | str) -> None:
        """Write one self-contained HTML page that opens offline; whole or not at all.

        Raises:
            OSError: The file cannot be written.
        """
        replace_file(Path(file), self._page())

    @final
    def save(self, directory: Path | str) -> None:
        """Write a folder with JSON, page, figure, and tensors and images where there are any.

        The folder appears whole or not at all. An older result of the same kind is replaced.

        Raises:
            FileExistsError: The folder holds something else.
            OSError: It cannot be written; what was there is as it was.
        """
        from torchxnn.explanations.drawing.canvas import figure_bytes

        with replace_folder(Path(directory), f"{self.stem}.json") as folder:
            record, page, figure = self._write(folder)
            (folder / f"{self.stem}.html").write_bytes(page)
            (folder / "figure.png").write_bytes(figure_bytes(figure, "png"))
            (folder / f"{self.stem}.json").write_bytes(self.format.encode(record))

    @final
    @classmethod
    def load(cls: type[Saved], directory: Path | str) -> Saved:
        """Read what `save` wrote.

        Raises:
            DataError: The folder holds no such result, a damaged one, or one of a newer version.
        """
        folder = Path(directory)
        record = cls.format.read(folder / f"{cls.stem}.json")
        try:
            return cls._read(folder, record)
        except XNNError:
            raise
        except _DAMAGE as error:
            raise DataError(f"{cls.format.what} in {folder} is damaged: {error!r}") from error

    @final
    def _repr_png_(self) -> bytes:
        """For documents that notebooks are turned into without HTML."""
        from torchxnn.explanations.drawing.canvas import figure_bytes

        return figure_bytes(self.plot(), "png")
