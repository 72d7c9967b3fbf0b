"""The live inputs of one process: what is left of them where one cannot be had."""

import socket

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from collectors.errors import ConfigError
from collectors.packet.sources import CaptureConfig
from detector import links
from detector.app import Service
from detector.config import Config


class Tap:
    """In place of the interfaces: opened and closed, and no more."""

    sources = ()

    def __init__(self):
        self.open = 0

    def __enter__(self):
        self.open += 1
        return self

    def __exit__(self, *error):
        self.open -= 1


@pytest.fixture
def made(monkeypatch):
    """Links with a tap of the test, whose privileges cannot be given up."""

    def drop(user):
        raise ConfigError(f"user {user!r}: there is none")

    tap = Tap()
    monkeypatch.setattr(links.tap, "Tap", lambda *_, **__: tap)
    monkeypatch.setattr(links.privileges, "drop", drop)

    def make(*, may_fail):
        capture = CaptureConfig(interface=["lo"], user="nosuch")
        wanted = links.Inputs(capture, "127.0.0.1", (0,), may_fail)
        said = []
        return links.Links(wanted, CollectorRegistry(), lambda _: None, said.append), tap, said

    return make


def test_where_capture_may_fail_exports_are_received_all_the_same(made):
    both, tap, said = made(may_fail=True)
    with both:
        both.confine()
        assert (tap.open, both.captures, both.receives) == (0, False, True)
        assert said == ["nothing is captured: user 'nosuch': there is none"]
        got = []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as router:
            router.sendto(b"export", ("127.0.0.1", int(str(both).rpartition(" ")[2])))
            while not (got and got[-1]):  # a thread of its own receives
                both.turn(got.append, got.append, 5.0)
        block = got[-1]
        assert block.data[block.at[0] : block.at[0] + block.size[0]].tobytes() == b"export"
    assert tap.open == 0


def test_where_it_may_not_all_is_closed(made):
    both, tap, _ = made(may_fail=False)
    with both, pytest.raises(ConfigError, match="nosuch"):
        both.confine()
    assert tap.open == 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", int(str(both).rpartition(" ")[2])))


@pytest.mark.parametrize(
    ("netflow", "told"),
    [
        ({"exporters": ["192.0.2.300"]}, "exporters"),
        ({"tls": {"port": 4740, "certificate": "/no.pem", "key": "/no.key"}}, "tls.certificate: /no.pem"),
    ],
)
def test_what_cannot_be_listened_to_is_found_before_anything_is_opened(netflow, told):
    config = msgspec.convert({"collectors": {"netflow": netflow}}, Config)
    with pytest.raises(ConfigError, match=told):
        Service(config)
    wanted = links.Inputs(CaptureConfig(), "127.0.0.1", (0,), netflow=config.collectors.netflow)
    with pytest.raises(ConfigError, match=told):
        links.Links(wanted, CollectorRegistry(), lambda _: None, lambda _: None)


def test_all_that_is_listened_to_is_told():
    config = msgspec.convert(
        {"tcp": {"port": 4739}, "tls": {"port": 4740, "certificate": "c", "key": "k"}},
        type(Config().collectors.netflow),
    )
    wanted = links.Inputs(CaptureConfig(), "::", (2055, 9995), netflow=config)
    assert str(wanted) == ":: UDP 2055, 9995, TCP 4739, TLS 4740"
