"""What the collectors of one process share: home networks, names that are looked for, counters.

Configuration in, collectors around a publisher out.  No engine and no index of pools' addresses is built.
"""

from collections.abc import Callable
from weakref import WeakSet

from prometheus_client import CollectorRegistry, disable_created_metrics

from collectors import subscribers
from collectors.app import sampled_frames
from collectors.bus import Publisher
from collectors.importing.collector import Collector as ImportCollector
from collectors.importing.collector import Config as ImportConfig
from collectors.importing.metrics import Metrics as ImportMetrics
from collectors.netflow.collector import Collector as NetflowCollector
from collectors.netflow.metrics import Metrics as NetflowMetrics
from collectors.netflow.templatesfile import TemplatesFile
from collectors.packet.collector import Collector as PacketCollector
from collectors.packet.collector import Metrics as PacketMetrics
from collectors.packet.names import NameFilter
from collectors.wire import Batch
from detector import poolfiles
from detector.config import Config
from detector.errors import ConfigError
from detector.pools import Pools
from detector.reload import Reloads, prefixes


class Site:
    """Raises ConfigError on home networks or lists that cannot be."""

    def __init__(self, config: Config, registry: CollectorRegistry) -> None:
        disable_created_metrics()
        self._config = config
        self._made: WeakSet[PacketCollector | NetflowCollector | ImportCollector] = WeakSet()
        self.pools = self.read_pools()
        self.networks = self.read_networks()
        self._settle()
        self.packets = PacketMetrics(registry)
        self.netflow = NetflowMetrics(registry)

    def packet_collector(self, partitions: int, publish: Publisher) -> PacketCollector:
        """A collector of packets that publishes there."""
        made = PacketCollector(
            self._config.collectors.packets, self.home, partitions, publish, self.packets, self.wanted
        )
        self._made.add(made)
        return made

    def flow_collector(
        self, partitions: int, publish: Publisher, transit: Callable[[Batch], None] | None = None
    ) -> NetflowCollector:
        """A collector of exports that publishes there; ``transit`` is given records of nobody's."""
        made = NetflowCollector(
            self._config.collectors.netflow, self.home, partitions, publish, self.netflow, sampled_frames,
            transit,
        )  # fmt: skip
        self._made.add(made)
        return made

    def import_collector(
        self, wanted: ImportConfig, partitions: int, publish: Publisher, metrics: ImportMetrics
    ) -> ImportCollector:
        """A collector of another collector's records that publishes there."""
        made = ImportCollector(wanted, self.home, partitions, publish, metrics)
        self._made.add(made)
        return made

    def templates_file(self, made: NetflowCollector) -> TemplatesFile:
        """The file that keeps what a live collector learns, as configured; nothing is opened yet."""
        config = self._config.collectors.netflow
        return TemplatesFile(config.templates_file, made, self.netflow, config.templates_file_every_s)

    def is_home(self, address: bytes) -> bool:
        """Whether a 16-byte address is home, by the networks in force."""
        return subscribers.holds(self.home, address)

    # -- lists that are read again -----------------------------------------------------------------

    def reloads(self, reloads: Reloads, taken: Callable[[], None] = lambda: None) -> None:
        """Have the lists of collectors reloaded; ``taken`` is called when the pools are others."""

        def take(pools: Pools) -> None:
            self.take_pools(pools)
            taken()

        reloads.add("pools", self.pools.rows, self.read_pools, take)
        if self._config.lists.home_networks:
            reloads.add("home_networks", self.networks, self.read_networks, self.take_networks)

    def read_pools(self) -> Pools:
        """The pool table as its files are now."""
        lists = self._config.lists
        return poolfiles.load(lists.pools, with_shipped=lists.shipped_pools)

    def read_networks(self) -> tuple[str, ...]:
        """Home networks as their file is now, else as configured."""
        path = self._config.lists.home_networks
        networks = prefixes(path, "lists.home_networks") if path else self._config.home_networks
        if path and not networks:
            raise ConfigError(f"lists.home_networks: {path} is empty: then nobody would be home")
        subscribers.home(networks)
        return networks

    def take_pools(self, pools: Pools) -> None:
        """Have other pools: the table that everybody holds is the same one."""
        self.pools.take(pools)
        self._settle()

    def take_networks(self, networks: tuple[str, ...]) -> None:
        """Have other home networks."""
        self.networks = networks
        self._settle()

    def _settle(self) -> None:
        """What follows from lists, for us and for the collectors that run."""
        self.home = subscribers.home(
            self.networks,
            pool_ports=sorted(self.pools.pool_ports),
            prefix6=self._config.subscriber_prefix_ipv6,
        )
        # Looked for in DNS answers and TLS hellos; nothing else leaves a collector.
        self.wanted = NameFilter(self.pools.exact_names, self.pools.suffixes)
        for made in list(self._made):
            made.rehome(self.home)
            if isinstance(made, PacketCollector):
                made.want(self.wanted)
