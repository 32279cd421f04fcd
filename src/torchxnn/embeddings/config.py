"""What users choose of an embedding; nothing here loads PyTorch."""

from typing import Literal

Pooling = Literal["none", "max", "average"]
