"""Where jobs run, as the command line knows it; the engines are loaded when one is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torchxnn.errors import XNNError

if TYPE_CHECKING:
    from torchxnn.parallel.engine import Engine


EngineName = Literal["local", "ray"]


@dataclass(frozen=True)
class EngineConfig:
    """Where jobs run; the results are the same everywhere.

    Attributes:
        engine: "local" is this machine, "ray" a Ray cluster.
        jobs: how many jobs run at once, each on one thread; by default 1 on this machine, and all
            processors of a Ray cluster.
        address: of a running Ray cluster, "auto" for the one that this machine belongs to; without
            it a cluster of this machine alone is started for the time of the jobs.
    """

    engine: EngineName = "local"
    jobs: int | None = None
    address: str | None = None

    def make(self) -> Engine:
        """The engine.

        Raises:
            XNNError: no such engine, Ray is not installed, or an address without Ray.
        """
        if self.engine == "ray":
            from torchxnn.parallel.ray_engine import RayEngine

            return RayEngine(self.address, self.jobs)
        if self.engine != "local":
            raise XNNError(f"unknown engine {self.engine!r}; known: local, ray")
        if self.address is not None:
            raise XNNError(
                f"the local engine has no address ({self.address}); choose the engine ray"
            )
        from torchxnn.parallel.engine import LocalEngine

        return LocalEngine(1 if self.jobs is None else self.jobs)
