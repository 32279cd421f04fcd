"""What participants answered: every call that returns has reached the disk."""

from torchxnn.apps.study.store.database import Database, open_database
from torchxnn.apps.study.store.participants import (
    NewParticipant,
    Participant,
    begin,
    count_cells,
    find_participant,
    forget,
    go_on,
)
from torchxnn.apps.study.store.trials import (
    Event,
    read_trial,
    save_events,
    submit_trial,
)

__all__ = [
    "Database",
    "Event",
    "NewParticipant",
    "Participant",
    "begin",
    "count_cells",
    "find_participant",
    "forget",
    "go_on",
    "open_database",
    "read_trial",
    "save_events",
    "submit_trial",
]
