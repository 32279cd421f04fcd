"""`xnn name`: a local page on which people name x-features."""

from __future__ import annotations

import threading
import webbrowser
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from torchxnn.apps.naming.config import NameConfig
from torchxnn.cli.saved_run import SavedRun, open_for
from torchxnn.cli.terminal import (
    Terminal,
    check_port,
    count_drawings,
    count_images,
    needs_extra,
    serve,
)
from torchxnn.data.class_names import spoken
from torchxnn.data.config import DataConfig
from torchxnn.errors import DataError


@dataclass(frozen=True)
class Name(SavedRun):
    """Open a local page to name the x-features of a saved XNN, or export their names."""

    data: Annotated[Positional[Path | None], arg(metavar="DIR")] = None
    """folder of images in class folders, or a CUB-200-2011 folder (its test split)"""
    who: str = ""
    """your name, which is kept with what you say; without it the page asks"""
    port: int = 8010
    """TCP port of the page, which this machine alone can open"""
    base_path: str = ""
    """path below which a proxy on this machine shows the page, if it is not the root"""
    browser: bool = True
    """open the page in the browser"""
    pages: NameConfig = field(default_factory=NameConfig)
    export: Path | None = None
    """write all judgements to this CSV file instead of opening the page"""
    source: DataConfig = field(default_factory=DataConfig)

    def execute(self, terminal: Terminal) -> None:
        """Draw the heatmaps, then serve until interrupted; or export."""
        from torchxnn.explanations.names.file import names_csv, read_names
        from torchxnn.explanations.names.records import check_person
        from torchxnn.storage.files import replace_file
        from torchxnn.storage.saved_folder import read_saved

        about, _ = read_saved(self.run)
        embedding, n_features = about["weights_sha256"], about["embedding"]["n_features"]
        names = read_names(self.run, embedding, n_features)
        if self.export is not None:
            replace_file(self.export, names_csv(names))
            terminal.say(f"Wrote {self.export}")
            return
        if self.who:
            check_person(self.who)
        if self.data is None:
            raise DataError("no images given: xnn name RUN DIR, or --export FILE.csv for the names")
        with needs_extra("study"):
            from torchxnn.apps.address import check_base_path
            from torchxnn.apps.naming.app import create_app
            from torchxnn.apps.naming.site import Site
        check_port("127.0.0.1", self.port)
        gallery, title = self._draw(self.data, terminal)
        app = create_app(Site(self.run, embedding, title, gallery, self.who), self.base_path)
        address = f"http://127.0.0.1:{self.port}{check_base_path(self.base_path)}/"
        terminal.say(
            f"Names are kept in {self.run}/names.json", f"Open {address} (end with Ctrl+C)"
        )
        if self.browser:
            opener = threading.Timer(1.0, webbrowser.open, [address])
            opener.daemon = True
            opener.start()
        serve(app, "127.0.0.1", self.port)

    def _draw(self, data: Path, terminal: Terminal) -> tuple[Any, str]:
        from torchxnn.apps.naming.gather import gather

        xnn = self.load()
        with terminal.progress() as progress:
            dataset = open_for(xnn, data, self.source, progress)
            gallery = gather(
                xnn,
                dataset,
                self.pages,
                self.source,
                on_batch=count_images(progress, "Recording activations", len(dataset)),
                on_drawing=count_drawings(progress, "Drawing heatmaps"),
            )
        return gallery, " and ".join(
            spoken(xnn.target_name(target), xnn.class_names) for target in xnn.targets
        )
