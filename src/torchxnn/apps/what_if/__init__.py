"""What the network says where an x-feature is taken away, of one image and of many."""

from torchxnn.apps.what_if.one_image import what_if
from torchxnn.apps.what_if.painting import WhatIfConfig
from torchxnn.apps.what_if.result import Change, WhatIf
from torchxnn.apps.what_if.table import Curve, WhatIfTable, what_if_table

__all__ = ["Change", "Curve", "WhatIf", "WhatIfConfig", "WhatIfTable", "what_if", "what_if_table"]
