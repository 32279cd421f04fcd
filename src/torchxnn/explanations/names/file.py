"""`names.json`, the names of x-features beside a saved XNN, and their table as CSV.

A writer reads what is there, adds its own records and writes the file in one step, so nobody's
judgement is lost: on this machine writers take turns with a lock, and in object storage, which has
no locks, a writer looks again afterwards. The file names the embedding that it belongs to by a
checksum, so that names are never shown for another fit.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor

from torchxnn.errors import DataError, ModelError
from torchxnn.explanations.names.judgements import FeatureNames
from torchxnn.storage.artifact import Format, plain, structure
from torchxnn.storage.files import locked, without_formula
from torchxnn.storage.paths import Location, as_place, file_size, read_bytes, write_bytes
from torchxnn.storage.saved_folder import MARKER, encode_weights, write_saved

NAMES = "names.json"
FORMAT = Format("torchxnn.names", 1, "a file of names of x-features", ModelError)
_HEAD = ("format", "format_version", "versions", "embedding_sha256")
_ATTEMPTS = 5


def read_names(folder: Location, embedding: str, n_features: int) -> FeatureNames:
    """The names beside a saved XNN; without a file, no names.

    Args:
        folder: of the saved XNN, or its URL.
        embedding: checksum of its weights.
        n_features: its number of x-features.

    Raises:
        ModelError: the file cannot be read, is of a newer version, or belongs to another fit.
    """
    file = as_place(folder) / NAMES
    try:
        values = FORMAT.decode(read_bytes(file), file)
    except FileNotFoundError:
        return FeatureNames(n_features)
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error}") from error
    if values.get("embedding_sha256") != embedding:
        raise ModelError(
            f"{file} names the x-features of another fit than the one beside it; load that one and "
            "carry its names over with XNN.adopt_names, or move the file away"
        )
    records = {name: value for name, value in values.items() if name not in _HEAD}
    try:
        names = structure(records, FeatureNames, str(file))
    except DataError as error:
        raise ModelError(str(error)) from error
    if names.n_features != n_features:
        raise ModelError(f"{file} is about {names.n_features} x-features, not {n_features}")
    return names


def write_names(folder: Location, names: FeatureNames, embedding: str) -> FeatureNames:
    """Add names to those beside a saved XNN; returns all that are there now.

    Args:
        folder: of the saved XNN, or its URL.
        names: what to add; records that are there already count once.
        embedding: checksum of the XNN's weights.

    Raises:
        ModelError: see `read_names`.
        FileNotFoundError: no saved XNN is there.
        OSError: the file cannot be written; the old one is as it was.
    """
    folder = as_place(folder)
    file = folder / NAMES
    for _ in range(_ATTEMPTS):
        with locked(folder) if isinstance(folder, Path) else nullcontext():
            if not file_size(folder / MARKER):  # asked inside, as it may just be replaced
                raise FileNotFoundError(f"{folder} holds no saved XNN; the names were not kept")
            together = read_names(folder, embedding, names.n_features).union(names)
            write_bytes(file, [_encode(together, embedding)])
            if isinstance(file, Path):
                return together
        found = read_names(folder, embedding, names.n_features)
        if found == found.union(names):
            return found
    raise ModelError(f"{file} is written by others all the time; try again")


def save_with_names(
    folder: Location, about: Mapping[str, Any], state: Mapping[str, Tensor], names: FeatureNames
) -> str:
    """Write a saved XNN with names beside it; those that lie there for the same weights stay.

    The folder is replaced while its names are locked, so that a judgement that somebody gives at
    the same time is kept.

    Args:
        folder: to appear, or its URL.
        about: plain values, see `describe_xnn`.
        state: state dict of the embedding.
        names: of its x-features.

    Returns:
        The checksum of the weights.

    Raises:
        FileExistsError: something else is there, or names that people gave to another fit.
        ModelError: the names that are there cannot be read.
    """
    folder = as_place(folder)
    embedding = encode_weights(state)[1]
    if not isinstance(folder, Path):
        check_names(folder, embedding)
        write_saved(folder, about, state)
        if names.judgements or names.actions:
            write_names(folder, names, embedding)
        return embedding
    there = (folder / MARKER).is_file()  # else nobody has an XNN to judge, and no lock file is left
    with locked(folder) if there else nullcontext():
        check_names(folder, embedding)
        together = read_names(folder, embedding, names.n_features).union(names)
        given = together.judgements or together.actions
        write_saved(folder, about, state, {NAMES: _encode(together, embedding)} if given else None)
    return embedding


def check_names(folder: Location, embedding: str | None = None) -> None:
    """Refuse to replace names that people gave; to be asked before long work, too.

    Args:
        folder: where an XNN is to be saved.
        embedding: checksum of its weights if they are known: names for the same weights are fine.

    Raises:
        FileExistsError: names of other x-features are there.
    """
    file = as_place(folder) / NAMES
    try:
        named = FORMAT.decode(read_bytes(file), file)
    except (FileNotFoundError, NotADirectoryError):
        return
    except ModelError:
        named = {}
    if embedding is None or named.get("embedding_sha256") != embedding:
        raise FileExistsError(
            f"{folder} holds names that people gave to x-features ({NAMES}), and another fit would "
            "replace them; save elsewhere and carry the names over with XNN.adopt_names, or move "
            "that file away"
        )


def _encode(names: FeatureNames, embedding: str) -> bytes:
    return FORMAT.encode({"embedding_sha256": embedding, **plain(names)})


def names_csv(names: FeatureNames) -> bytes:
    """All judgements as CSV, one a line, with what follows about their x-feature.

    Columns: index (0-based), x_feature (as people see it), who, name, flag, note, when, origin,
    counts (whether it is that person's last word), shown_name and status ("by rule", "one
    person" or "agreed"), agreed_name (of at least two people), agreed_flag, people. x-features that
    nobody judged have one line with empty columns. A text that a spreadsheet would run as a formula
    has an apostrophe before it.
    """
    stream = io.StringIO(newline="")
    table = csv.writer(stream)
    table.writerow(
        ["index", "x_feature", "who", "name", "flag", "note", "when", "origin", "counts",
         "shown_name", "status", "agreed_name", "agreed_flag", "people"]
    )  # fmt: skip
    for feature in range(names.n_features):
        settled, latest = names.settled(feature), names.latest(feature)
        rows = [
            (j.who, j.name, j.flag, j.note, j.when, j.origin,
             "yes" if latest.get(names.person(j.who)) == j else "no")
            for j in names.judgements if j.feature == feature
        ] or [("",) * 7]  # fmt: skip
        start = str(feature), f"x-feature {feature + 1}"
        flag = settled.flag if settled.people > 1 else ""
        agreed = settled.name, settled.status, names.agreed(feature), flag, str(settled.people)
        table.writerows(map(without_formula, (*start, *row, *agreed)) for row in rows)
    return stream.getvalue().encode()
