"""Where a network comes from, in the form that every library and every factory is brought to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from torchxnn.errors import ModelError, XNNError, where_and_why
from torchxnn.models.checkpoints import Checkpoint, load_checkpoint
from torchxnn.models.preprocessing import Preprocessing

NEAR = 4, 0.5
"""How many names of networks a message lists, and how like the wrong one they must be."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A network in evaluation mode and how to feed it.

    Attributes:
        model: float32, on the CPU.
        preprocessing: how its pictures become tensors.
        classes: class names, where they are known.
        description: one line for people: what it is and where its weights come from.
        random_weights: whether nobody trained it, as far as `load_model` can tell.
        assumed: whether nobody says how its pictures are prepared, so that `preprocessing` is a
            guess.
    """

    model: nn.Module
    preprocessing: Preprocessing
    classes: tuple[str, ...] | None
    description: str
    random_weights: bool = False
    assumed: bool = False


def _unknown(_: nn.Module) -> None:
    """No names: most networks do not carry those of their outputs."""


def _strictly(network: nn.Module, checkpoint: Checkpoint) -> tuple[nn.Module, str]:
    return network, load_checkpoint(network, checkpoint)


@dataclass(frozen=True)
class Source:
    """Where a network comes from: how to build it, and its own weights on this machine.

    Attributes:
        spec: the name that a person gave.
        factory: takes `num_classes` by name, or nothing for the classes that the network has.
        preprocessing: what the library says; None if it says nothing.
        pretrained: the network with the library's own weights, or None if they are not on this
            machine; None for a factory.
        fetch: what a person can do about it.
        take: a network with the weights of a checkpoint, and what was undone to make them fit.
        class_names: the names of a network's outputs, where the network knows them.
    """

    spec: str
    factory: Callable[..., nn.Module | LoadedModel]
    preprocessing: Preprocessing | None
    pretrained: Callable[[], LoadedModel | None] | None
    fetch: str = ""
    class_names: Callable[[nn.Module], tuple[str, ...] | None] = _unknown
    take: Callable[[nn.Module, Checkpoint], tuple[nn.Module, str]] = _strictly

    def build(self, num_classes: int | None) -> nn.Module | LoadedModel:
        """The network with random weights, or those that its factory gives it."""
        return self.factory(**({} if num_classes is None else {"num_classes": num_classes}))

    def build_or_say_why(self, num_classes: int | None) -> nn.Module | LoadedModel:
        """The same; whatever goes wrong in the code of a factory is one line.

        Raises:
            ModelError: with the place in the code.
        """
        try:
            return self.build(num_classes)
        except XNNError:
            raise
        except Exception as error:
            raise ModelError(f"{self.spec} fails: {where_and_why(error)}") from error

    def loaded(
        self, model: nn.Module | LoadedModel, origin: str, classes: tuple[str, ...] | None = None
    ) -> LoadedModel:
        """A network of this source with what is known about it; `origin` is that of its weights."""
        about = f"{self.spec}, {origin}"
        if isinstance(model, LoadedModel):
            return replace(model, description=about)
        own = getattr(model, "preprocessing", None)
        chosen = own if isinstance(own, Preprocessing) else self.preprocessing
        names = classes or self.class_names(model)
        return LoadedModel(model, chosen or Preprocessing(), names, about, assumed=chosen is None)
