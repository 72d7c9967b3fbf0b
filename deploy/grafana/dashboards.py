"""Make the dashboards.

    python deploy/grafana/dashboards.py            writes dashboards/*.json
    python deploy/grafana/dashboards.py --check    status 1 where they are not what is made here

The panels are in ``mining.py``, ``collecting.py`` and ``pipeline.py``.
"""

import sys
from typing import Final

import mining
import pipeline
from layout import write

DASHBOARDS: Final = (mining.DASHBOARD, pipeline.DASHBOARD)

if __name__ == "__main__":
    sys.exit(write(DASHBOARDS, check="--check" in sys.argv[1:]))
