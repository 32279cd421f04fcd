"""The tables; see `docs/study_analysis.md` for what the columns of the export mean."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

SCHEMA_VERSION = 3
"""Raised with a step in `migrations` whenever a table changes."""

NO_NUL = r"^[^\x00]*$"
"""Pattern of texts that every database can keep: PostgreSQL refuses the character NUL."""

metadata = MetaData()

facts = Table(
    "facts",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("value", Text, nullable=False),
)
"""What study the database belongs to, the version of the schema, and the server's secret."""

participants = Table(
    "participants",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("arm", String(40), nullable=False),
    Column("place", Integer, nullable=False),
    Column("kind", String(20), nullable=False),
    Column("status", String(20), nullable=False),
    Column("step", String(40), nullable=False),
    Column("token", String(64), unique=True),
    Column("person", String(64), unique=True),
    Column("parameters", JSON, nullable=False),
    Column("language", String(10), nullable=False),
    Column("consent_version", String(40), nullable=False),
    Column("consented_at", Float, nullable=False),
    Column("seen_at", Float, nullable=False),
    Column("finished_at", Float),
    Column("expired_at", Float),
    Column("code", String(40)),
    Column("told_all", Boolean),
    sqlite_autoincrement=True,  # a number is never given twice
)
"""`token` is the SHA-256 of the cookie's; `person` a keyed hash of the recruiter's identifier.

`told_all` says whether the consent text listed all that can be kept; missing of earlier versions.
"""

Index("participants_place", participants.c.arm, participants.c.kind, participants.c.place)


def _owner() -> Column[int]:
    return Column("number", Integer, ForeignKey("participants.number"), primary_key=True)


answers = Table(
    "answers",
    metadata,
    _owner(),
    Column("question", String(40), primary_key=True),
    Column("value", Text, nullable=False),
    Column("at", Float, nullable=False),
)

trials = Table(
    "trials",
    metadata,
    _owner(),
    Column("position", Integer, primary_key=True),
    Column("started_at", Float, nullable=False),
    Column("submitted_at", Float),
)

placements = Table(
    "placements",
    metadata,
    _owner(),
    Column("position", Integer, primary_key=True),
    Column("image", String(40), primary_key=True),
    Column("in_group", Integer, nullable=False),
    Column("at", Float, nullable=False),
)

events = Table(
    "events",
    metadata,
    _owner(),
    Column("id", String(32), primary_key=True),
    Column("sequence", Integer, nullable=False),
    Column("position", Integer, nullable=False),
    Column("type", String(20), nullable=False),
    Column("image", String(40)),
    Column("value", JSON, nullable=False),
    Column("client_ms", Float, nullable=False),
    Column("at", Float, nullable=False),
)
