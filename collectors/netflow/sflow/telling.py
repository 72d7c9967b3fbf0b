"""What is known of sFlow agents, told as metrics by exporter and sub-agent: losses and rates in force."""

import numpy as np

from collectors.netflow.domains import D_LOST
from collectors.netflow.metrics import Metrics, text
from collectors.netflow.sflow.metrics import PROTOCOL
from collectors.netflow.sflow.rows import Reader
from collectors.netflow.sflow.walking import O_NEXT, O_RATE


class SampleTeller:
    """``tell`` once a second."""

    def __init__(self, reader: Reader, metrics: Metrics) -> None:
        self._reader = reader
        self._metrics = metrics
        self._shown: dict[tuple[str, str], dict[str, int]] = {}

    def tell(self) -> None:
        """Bring the metrics up to date.

        A rate's ``sampler`` is the source of samples: the ifIndex, or class and index; its ``domain`` says
        sFlow, for NetFlow's domains have the same numbers.
        """
        reader, metrics = self._reader, self._metrics
        if not len(reader.agents) and not self._shown:
            return
        agents = {number: agent for agent, number in reader.agents.items()}
        for number in np.flatnonzero(reader.agents.domains[:, D_LOST]).tolist():
            if number in agents:
                agent = agents[number]
                lost = int(reader.agents.domains[number, D_LOST])
                metrics.lost_of.inc((text(agent.exporter), str(agent.sub_agent), PROTOCOL), lost)
        reader.agents.domains[:, D_LOST] = 0
        found: dict[tuple[str, str], dict[str, int]] = {}
        used = np.flatnonzero((reader.keys != 0) & (reader.sources[:, O_NEXT] >= 0))
        for key, rate in zip(reader.keys[used].tolist(), reader.sources[used, O_RATE].tolist(), strict=True):
            told = agents.get(key >> 34 & 0x1FFFFFFF)
            if told is None:
                continue
            kind, index = key >> 32 & 3, key & 0xFFFFFFFF
            believed = rate if rate <= reader.most_rate else 0
            holds = reader.overrides.rate(told.exporter, told.sub_agent, -1 if kind else index, believed)
            if holds:
                source = f"{kind}:{index}" if kind else str(index)
                found.setdefault((text(told.exporter), f"sflow {told.sub_agent}"), {})[source] = holds
        for name in self._shown.keys() - found.keys():
            metrics.rates.forget(*name)
        for name, rates in found.items():
            if self._shown.get(name) != rates:
                metrics.rates.show(*name, rates)
        self._shown = found
