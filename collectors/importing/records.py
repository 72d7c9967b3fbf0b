"""What decoders of other collectors' records share: columns of ``flows``, stamps, refusals."""

from typing import Final, TypeAlias

import numpy as np

from collectors.netflow.columns import Column

IMPORTED: Final = 20
"""The ``source`` of a row that another collector has decoded."""
MOST_NS: Final = 1 << 62

Columns: TypeAlias = dict[str, Column]
"""What ``netflow.columns.rows`` takes."""
Stamps: TypeAlias = np.ndarray
