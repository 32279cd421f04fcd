from .change import Change
from .config import WhatIfConfig
from .one_image import what_if
from .result import WhatIf
from .table import Curve, WhatIfTable, what_if_table

__all__ = ["Change", "Curve", "WhatIf", "WhatIfConfig", "WhatIfTable", "what_if", "what_if_table"]
