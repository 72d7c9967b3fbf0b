"""The printed configuration is a configuration."""

import tomllib

import msgspec

from collectors.netflow.overrides import SamplingRate
from collectors.netflow.settings import Config as NetflowConfig
from detector.config import Collectors, Config, as_toml


def test_tables_in_a_list_are_printed_and_read_again():
    rows = SamplingRate(rate=1000, exporter="192.0.2.0/24"), SamplingRate(rate=5, domain=0, interface=3)
    config = Config(collectors=Collectors(netflow=NetflowConfig(sampling=rows)))
    assert msgspec.convert(tomllib.loads(as_toml(config)), Config) == config
