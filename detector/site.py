"""What the collectors of one process share: home networks, names that are looked for, counters.

Configuration in, collectors around a publisher out.  No engine and no index of pools' addresses is built.
"""

from prometheus_client import CollectorRegistry, disable_created_metrics

from collectors import subscribers
from collectors.bus import Publisher
from collectors.netflow.collector import Collector as NetflowCollector
from collectors.netflow.metrics import Metrics as NetflowMetrics
from collectors.packet.collector import Collector as PacketCollector
from collectors.packet.collector import Metrics as PacketMetrics
from collectors.packet.names import NameFilter
from detector import poolfiles
from detector.config import Config


class Site:
    """Raises ConfigError on home networks or lists that cannot be."""

    def __init__(self, config: Config, registry: CollectorRegistry) -> None:
        disable_created_metrics()
        self._config = config.collectors
        self.pools = poolfiles.load(config.lists.pools, with_shipped=config.lists.shipped_pools)
        self.home = subscribers.home(
            config.home_networks,
            pool_ports=sorted(self.pools.pool_ports),
            prefix6=config.subscriber_prefix_ipv6,
        )
        # Looked for in DNS answers and TLS hellos; nothing else leaves a collector.
        self.wanted = NameFilter(self.pools.exact_names, self.pools.suffixes)
        self.packets = PacketMetrics(registry)
        self.netflow = NetflowMetrics(registry)

    def packet_collector(self, partitions: int, publish: Publisher) -> PacketCollector:
        """A collector of packets that publishes there."""
        return PacketCollector(
            self._config.packets, self.home, partitions, publish, self.packets, self.wanted
        )

    def flow_collector(self, partitions: int, publish: Publisher) -> NetflowCollector:
        """A collector of exports that publishes there."""
        return NetflowCollector(self._config.netflow, self.home, partitions, publish, self.netflow)
