"""The former name of `torchxnn.models.preprocessing`.

It is kept for the files of network factories that people wrote when `Preprocessing` lay here, and
has no other use: write `from torchxnn.models import Preprocessing`.
"""

from torchxnn.models.preprocessing import Preprocessing

__all__ = ["Preprocessing"]
