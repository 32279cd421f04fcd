"""What a server of a study is told in its environment, as every user can see a command line."""

from __future__ import annotations

import os

DATABASE = "XNN_STUDY_DATABASE"
"""Environment variable with the URL of the database, which has a password in it."""

ADMIN_TOKEN = "XNN_STUDY_ADMIN_TOKEN"
"""Environment variable with the token of the dashboard."""


def database_url(given: str | None) -> str | None:
    """The URL of the command line, else of the environment; None for the file in the folder."""
    return given or os.environ.get(DATABASE) or None


def admin_token(given: str | None) -> str | None:
    """The token of the command line, else of the environment; None for neither."""
    return given if given is not None else os.environ.get(ADMIN_TOKEN) or None
