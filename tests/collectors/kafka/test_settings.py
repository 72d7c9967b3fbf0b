"""The section ``[kafka]``: what it refuses, and that each setting reaches every client."""

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer

from collectors.config import parse
from collectors.errors import ConfigError
from collectors.kafka import clients
from collectors.kafka.config import Config
from detector.config import Config as Whole
from detector.config import as_toml


def made(text, **environment):
    return parse(text, environment, Whole, "c.toml")


def test_the_empty_file_is_valid_and_the_bus_is_embedded():
    assert made("").bus == "embedded"
    assert made("").kafka == Config()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('bus = "rabbit"', "bus"),
        ('[kafka]\nbootstrap_server = ["a:1"]', "did you mean 'kafka.bootstrap_servers'?"),
        ("[kafka]\npartitions = 0", "kafka.partitions"),
        ('[kafka]\ncompression = "gzip"', "kafka.compression"),
        ('[kafka]\ntopic_prefix = "a b"', "kafka.topic_prefix"),
        ("[kafka]\nbootstrap_servers = []", "kafka.bootstrap_servers"),
        ("[kafka]\nin_flight_bytes = 1", "kafka.in_flight_bytes"),
        ("[kafka.retention_s]\nincidents = 60", "unknown key 'kafka.retention_s.incidents'"),
        ('[kafka]\nsasl_password = "x"', "did you mean 'kafka.sasl_password_file'?"),
        ("[bus]\npartitions = 4", "bus"),
    ],
)
def test_mistakes_are_refused_by_name(text, told):
    with pytest.raises(ConfigError, match=told.replace("?", r"\?")):
        made(text)


def test_the_environment_sets_servers_as_a_list():
    got = made("", POOLWATCH_BUS="kafka", POOLWATCH_KAFKA__BOOTSTRAP_SERVERS="a:1, b:2")
    assert got.bus == "kafka"
    assert got.kafka.bootstrap_servers == ("a:1", "b:2")


@pytest.fixture
def secured(tmp_path):
    for name, text in (
        ("ca", "c"),
        ("cert", "c"),
        ("key", "k"),
        ("key-secret", "one two\n"),
        ("word", "pa ss\n"),
    ):
        (tmp_path / name).write_text(text)
    return Config(
        bootstrap_servers=("a:9093", "b:9093"),
        security_protocol="SASL_SSL",
        ssl_cafile=str(tmp_path / "ca"),
        ssl_certfile=str(tmp_path / "cert"),
        ssl_keyfile=str(tmp_path / "key"),
        ssl_password_file=str(tmp_path / "key-secret"),
        ssl_check_hostname=False,
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="tap1",
        sasl_password_file=str(tmp_path / "word"),
    )


def test_every_security_setting_reaches_every_client(secured, tmp_path):
    wanted = {
        "bootstrap_servers": ["a:9093", "b:9093"],
        "security_protocol": "SASL_SSL",
        "ssl_cafile": str(tmp_path / "ca"),
        "ssl_certfile": str(tmp_path / "cert"),
        "ssl_keyfile": str(tmp_path / "key"),
        "ssl_password": "one two",
        "ssl_check_hostname": False,
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "tap1",
        "sasl_plain_password": "pa ss",
    }
    for kind, given in (
        (KafkaAdminClient, clients.settings(secured, "x")),
        (KafkaProducer, clients.sending(secured, "x")),
        (KafkaConsumer, clients.reading(secured, "x", {})),
    ):
        assert given.items() >= wanted.items()
        assert given["client_id"] == "x"
        assert given.keys() <= kind.DEFAULT_CONFIG.keys()


def test_no_client_creates_topics_or_commits_by_itself():
    for given in (clients.sending(Config(), "x"), clients.reading(Config(), "x", {})):
        assert given["allow_auto_create_topics"] is False
    assert clients.reading(Config(), "x", {})["enable_auto_commit"] is False
    assert clients.reading(Config(), "x", {"auto_offset_reset": "latest"})["auto_offset_reset"] == "latest"
    assert clients.sending(Config(), "x")["enable_idempotence"] is True


def test_a_heartbeat_is_a_third_of_a_session():
    given = clients.reading(Config(session_timeout_ms=6000), "x", {})
    assert given["session_timeout_ms"] == 3 * given["heartbeat_interval_ms"] == 6000


def test_printed_configuration_holds_no_secret(secured):
    text = as_toml(Whole(kafka=secured))
    assert "pa ss" not in text
    assert "one two" not in text
    assert parse(text, {}, Whole, "printed").kafka == secured


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"ssl_cafile": "/nowhere/ca"}, "kafka.ssl_cafile: /nowhere/ca is no file"),
        ({"ssl_password_file": "/nowhere/p"}, "kafka.ssl_password_file: /nowhere/p"),
        ({"sasl_mechanism": "PLAIN"}, "kafka.security_protocol is 'PLAINTEXT'"),
        ({"security_protocol": "SASL_SSL"}, "kafka.sasl_mechanism is ''"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN"}, "needs kafka.sasl_username"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_opened(changes, told):
    with pytest.raises(ConfigError, match=told):
        clients.settings(Config(**changes), "x")


def test_an_empty_secret_is_refused(tmp_path):
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        clients.settings(Config(ssl_password_file=str(tmp_path / "empty")), "x")
