"""`names.json`, the names of x-features beside a saved XNN, and their table as CSV.

A writer reads what is there, adds its own records and writes the file in one step, so nobody's
judgement is lost: on this machine writers take turns with a lock, and in object storage, which has
no locks, a writer looks again afterwards. The file names the embedding that it belongs to by a
checksum, so that names are never shown for another fit.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from torchxnn.errors import DataError, ModelError
from torchxnn.explanations.names.judgements import FeatureNames
from torchxnn.storage.files import locked, without_formula
from torchxnn.storage.paths import Location, as_location, child, read_bytes, write_bytes

NAMES = "names.json"
FORMAT, FORMAT_VERSION = "torchxnn.names", 1
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
    file = child(as_location(folder), NAMES)
    try:
        values = json.loads(read_bytes(file).decode())
    except FileNotFoundError:
        return FeatureNames(n_features)
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ModelError(f"{file} holds no names of x-features")
    if values.get("format_version") != FORMAT_VERSION:
        raise ModelError(
            f"{file} has format version {values.get('format_version')}; this torchxnn reads "
            f"version {FORMAT_VERSION}"
        )
    if values.get("embedding_sha256") != embedding:
        raise ModelError(
            f"{file} names the x-features of another fit than the one beside it; load that one and "
            "carry its names over with XNN.adopt_names, or move the file away"
        )
    try:
        names = FeatureNames.from_json(values)
    except DataError as error:
        raise ModelError(f"{file} is damaged: {error}") from error
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
        OSError: the file cannot be written; the old one is as it was.
    """
    folder = as_location(folder)
    file = child(folder, NAMES)
    if isinstance(file, Path):
        with locked(file):
            together = read_names(folder, embedding, names.n_features).union(names)
            write_bytes(file, [encode_names(together, embedding)])
        return together
    for _ in range(_ATTEMPTS):
        together = read_names(folder, embedding, names.n_features).union(names)
        write_bytes(file, [encode_names(together, embedding)])
        found = read_names(folder, embedding, names.n_features)
        if found == found.union(names):
            return found
    raise ModelError(f"{file} is written by others all the time; try again")


def encode_names(names: FeatureNames, embedding: str) -> bytes:
    """The bytes of `names.json`."""
    head = {"format": FORMAT, "format_version": FORMAT_VERSION, "embedding_sha256": embedding}
    text = json.dumps(head | names.to_json(), indent=1, ensure_ascii=False)
    return f"{text}\n".encode()


def names_csv(names: FeatureNames) -> bytes:
    """All judgements as CSV, one a line, with what is agreed on about their x-feature.

    Columns: index (0-based), x_feature (as people see it), who, name, flag, note, when, origin,
    counts (whether it is that person's last word), agreed_name, agreed_flag, people. x-features
    that nobody judged have one line with empty columns. A text that a spreadsheet would run as a
    formula has an apostrophe before it.
    """
    stream = io.StringIO(newline="")
    table = csv.writer(stream)
    table.writerow(
        ["index", "x_feature", "who", "name", "flag", "note", "when", "origin", "counts",
         "agreed_name", "agreed_flag", "people"]
    )  # fmt: skip
    for feature in range(names.n_features):
        settled, latest = names.settled(feature), names.latest(feature)
        agreed = [settled.name, settled.flag, str(settled.people)]
        start = [str(feature), f"x-feature {feature + 1}"]
        judged = [j for j in names.judgements if j.feature == feature]
        rows = [
            [*start, j.who, j.name, j.flag, j.note, j.when, j.origin,
             "yes" if latest.get(j.who) == j else "no", *agreed]
            for j in judged
        ] or [[*start, *[""] * 7, *agreed]]  # fmt: skip
        table.writerows([without_formula(cell) for cell in row] for row in rows)
    return stream.getvalue().encode()
