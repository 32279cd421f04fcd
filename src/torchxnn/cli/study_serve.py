"""The commands `xnn study serve` and `xnn study simulate`."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from torchxnn.cli.study_answers import Folder
from torchxnn.cli.study_secrets import ADMIN_TOKEN, admin_token, database_url
from torchxnn.cli.terminal import Terminal, check_port, count_images, serve
from torchxnn.errors import DataError, XNNError

if TYPE_CHECKING:
    from torchxnn.apps.study.simulate_known import Known


@dataclass(frozen=True)
class Serve:
    """Serve a study to participants."""

    study: Folder
    port: int = 8000
    """TCP port"""
    host: str = "127.0.0.1"
    """address to listen on; 0.0.0.0 for all"""
    admin_token: str | None = None
    """opens the dashboard at /admin, also as XNN_STUDY_ADMIN_TOKEN in the environment; made up and
    printed if it is not given"""
    database: str | None = None
    """URL of another database than the SQLite file in the folder, such as
    postgresql+pg8000://user:password@host/name, also as XNN_STUDY_DATABASE in the environment"""
    pilot: bool = False
    """mark everybody who comes as a pilot"""
    base_path: str = ""
    """path below which the study lies on its host, such as /study, if it is not the root"""

    def execute(self, terminal: Terminal) -> None:
        """Serve the study until interrupted."""
        from torchxnn.apps.study.plan import StudyPlan
        from torchxnn.apps.study.store.lock import alone_with

        check_port(self.host, self.port)
        StudyPlan.read(self.study)  # before a lock is put into a folder of something else
        given = admin_token(self.admin_token)
        if given is not None and len(given) < 8:
            raise XNNError(
                f"admin_token (or {ADMIN_TOKEN} in the environment) must have at least 8 "
                "characters: it opens all answers"
            )
        token = given or secrets.token_urlsafe(12)
        way_out = (
            "use the server that runs, or stop it first (several servers share one study on "
            "PostgreSQL alone, see --database)"
        )
        with alone_with(self.study, database_url(self.database), way_out):
            self._serve(token, given is None, terminal)

    def _serve(self, token: str, made_up: bool, terminal: Terminal) -> None:
        """Serve the study; `made_up` says whether the token has to be told."""
        from torchxnn.apps.address import check_base_path
        from torchxnn.apps.study.server.app import create_app

        self._warn_of_minutes(terminal)
        self._warn_of_recording(terminal)
        pilot = self.pilot or self._is_unfinished(terminal)
        app = create_app(self.study, database_url(self.database), token, pilot, self.base_path)
        address = f"http://{self.host}:{self.port}{check_base_path(self.base_path)}"
        terminal.say(f"Participants: {address}/", f"Dashboard:    {address}/admin")
        if made_up:
            terminal.say(f"Admin token:  {token}")
        if pilot:
            terminal.say("Everybody who comes now is marked as a pilot.")
        serve(app, self.host, self.port)

    def _warn_of_minutes(self, terminal: Terminal) -> None:
        """Warn if the consent text and the instructions promise different durations."""
        from torchxnn.apps.study.plan import CONSENT, StudyPlan
        from torchxnn.apps.study.steps import minutes_of
        from torchxnn.apps.study.texts import read_consent, says_minutes

        plan, consent = StudyPlan.read(self.study), read_consent(self.study)
        for minutes in {minutes_of(plan, arm.name) for arm in plan.settings.arms}:
            if not says_minutes(consent, minutes):
                terminal.warn(
                    f"{self.study / CONSENT} does not say {minutes} minutes, as the instructions "
                    "do: write {minutes} there, or set `minutes` when you build the study"
                )

    def _warn_of_recording(self, terminal: Terminal) -> None:
        """Warn if the consent text does not list all that is kept: then less is."""
        from torchxnn.apps.study.plan import CONSENT
        from torchxnn.apps.study.recorded import RECORDED, says_what_is_recorded
        from torchxnn.apps.study.texts import read_consent

        if not says_what_is_recorded(read_consent(self.study)):
            terminal.warn(
                f"{self.study / CONSENT} has no {RECORDED}, the list of what is kept: travel of "
                "the pointer, focus and pasting are not recorded; write it there to record them"
            )

    def _is_unfinished(self, terminal: Terminal) -> bool:
        """Whether the consent text has blanks, with which the study can only be tried out.

        Raises:
            DataError: it has, and the address is open to other machines.
        """
        from torchxnn.apps.address import LOOPBACK
        from torchxnn.apps.study.plan import CONSENT
        from torchxnn.apps.study.texts import find_blanks, read_consent

        file, blanks = self.study / CONSENT, find_blanks(read_consent(self.study))
        if not blanks:
            return False
        more = f" and {len(blanks) - 1} more" if blanks[1:] else ""
        problem = f"{file} has blanks that nobody has filled in: [{blanks[0]}]{more}"
        if self.host not in LOOPBACK:
            raise DataError(
                f"{problem}; fill them in, or serve the study with --pilot (a bracket that is to "
                "stay is written \\[)"
            )
        terminal.warn(f"{problem}. Until then this is a pilot; fill them in before you recruit.")
        return True


@dataclass(frozen=True)
class Simulate:
    """Let synthetic participants, always marked as such, pass through a study over HTTP."""

    url: Annotated[Positional[str], arg(metavar="URL")]
    """where the study is served"""
    participants: int = 10
    """how many"""
    arm: str | None = None
    """arm that they join; the first one by default"""
    at_once: int = 5
    """how many at the same time"""
    pause: float = 0.0
    """mean seconds between two actions; people take about 3"""
    seed: int = 0
    """of their decisions"""
    study: Path | None = None
    """folder of the study that is served there: with it they know the truth, and are right as often
    as --right says"""
    right: tuple[float, float, float] | None = None
    """shares of right answers with NoVis, 1-Heatmap and XNN, from 0 to 1: an effect that the
    analysis must find again; needs --study"""

    def execute(self, terminal: Terminal) -> None:
        """Let the participants pass through, and count who finished and who failed."""
        from torchxnn.apps.study.simulate import SimulationConfig, simulate

        config = SimulationConfig(
            self.participants, self.arm, self.at_once, self.pause, self.seed, self._known()
        )
        with terminal.progress() as progress:
            advance = count_images(progress, "Participants", self.participants)
            found = simulate(self.url, config, lambda: advance(1))
        terminal.say(found.summary())
        if found.failed:
            raise XNNError(f"{len(found.failed)} did not finish; the first: {found.failed[0]}")

    def _known(self) -> Known | None:
        """The truth and the shares of right answers; None if neither is given."""
        from torchxnn.apps.study.plan import StudyPlan
        from torchxnn.apps.study.simulate_known import Known

        if self.study is None and self.right is None:
            return None
        if self.study is None or self.right is None:
            raise DataError("--study and --right belong together: give both or neither")
        stages = ("NoVis", "1-Heatmap", "XNN")
        return Known(StudyPlan.read(self.study), dict(zip(stages, self.right, strict=True)))
