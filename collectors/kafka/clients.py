"""The only importer of kafka-python: settings in, clients of it out, each with the same ways and secrets.

What the client library does by default and may not do here: create topics by itself, wait half a minute
before it tries a broker again, log a line for every message that is tried again, and give up for good
after one message that a broker refuses.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition, errors
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.consumer.fetcher import Fetcher
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.future import Future
from kafka.net.compat import KafkaNetClient
from kafka.producer import kafka as kafka_producer
from kafka.producer import record_accumulator
from kafka.producer import sender as kafka_sender
from kafka.record import default_records, memory_records, util
from kafka.structs import OffsetAndMetadata

from collectors import wire
from collectors.errors import ConfigError, InputError
from collectors.kafka import packing
from collectors.kafka.complaints import Complaints
from collectors.kafka.config import Config

__all__ = [
    "AsyncConsumerRebalanceListener",
    "ConfigResource",
    "ConfigResourceType",
    "CorruptBatchError",
    "Future",
    "KafkaAdminClient",
    "KafkaConsumer",
    "KafkaProducer",
    "OffsetAndMetadata",
    "TopicPartition",
    "abandon",
    "admin",
    "commit_from_listener",
    "consumer",
    "errors",
    "producer",
    "reaching",
    "settings",
]

Made = TypeVar("Made", KafkaAdminClient, KafkaConsumer, KafkaProducer)

# Topics carry this as max.message.bytes: the largest value, and its headers with a clock of each exporter.
MAX_RECORD_BYTES: Final = wire.MAX_MESSAGE_BYTES + (1 << 20)
# Messages of one partition that go together.  Most are larger and go alone.
BATCH_BYTES: Final = 1 << 20
# A request takes up what came in so many milliseconds.
LINGER_MS: Final = 20
# A message whose topic went away costs its sender so long, not a minute.
BLOCK_MS: Final = 2000
# Records of so many octets are compressed when they are given, alone: see ``packing``.
LARGE_BYTES: Final = 32 << 10
# What a batch may become when it is unpacked: 9 MB of it could become a hundred gigabytes.
MAX_BATCH_BYTES: Final = 4 * MAX_RECORD_BYTES


_COMPLAINTS: Final = Complaints()
_KINDS: Final[dict[int, packing.Kind]] = {
    default_records.DefaultRecordBatch.CODEC_ZSTD: "zstd",
    default_records.DefaultRecordBatch.CODEC_LZ4: "lz4",
}


def _compress(builder: Any) -> bool:
    """Compress the records of a batch in place; whether they became smaller.

    The library's own way copies them twice before, which costs as much as compressing them, and has no
    setting for zstd's level.
    """
    kind = _KINDS.get(builder._compression_type)
    if kind is None:
        return False
    head = builder.HEADER_STRUCT.size
    with memoryview(builder._buffer) as whole, whole[head:] as data:
        packed = packing.compressed(kind, data)
        if len(packed) >= len(data):
            return False
    builder._buffer[head:] = packed
    return True


default_records.DefaultRecordBatchBuilder._maybe_compress = _compress


class _Builder(default_records.DefaultRecordBatchBuilder):  # type: ignore[misc]
    """A batch of records.  A large one is compressed when it is given, and is alone: its octets are its
    sender's again, and what waits is what will be sent.  So are records that were laid out together."""

    _num_records: int
    _packed: bool | None = None

    def append(
        self,
        offset: int,
        timestamp: int | None,
        key: bytes | None,
        value: Any,
        headers: Sequence[tuple[str, bytes]],
    ) -> Any:
        """Take one more record; None where it must go in another batch."""
        if self._packed is not None:
            return None
        kind = _KINDS.get(self._compression_type)
        laid = isinstance(headers, packing.Laid)
        if not laid and (self._num_records or kind is None or value is None or len(value) < LARGE_BYTES):
            return super().append(offset, timestamp, key, value, headers)
        if self._num_records:
            return None
        timestamp = int(time.time() * 1000) if timestamp is None else timestamp
        data = value if laid else packing.record(key, value, headers)
        packed = data if kind is None else packing.compressed(kind, data)
        self._packed = len(packed) < len(data)
        self._buffer += packed if self._packed else data
        self._first_timestamp = self._max_timestamp = timestamp
        self._num_records = packing.records(headers)
        self._last_offset = self._num_records - 1
        return default_records.DefaultRecordMetadata(offset, len(data), timestamp)

    def _maybe_compress(self) -> bool:
        return _compress(self) if self._packed is None else self._packed


memory_records.DefaultRecordBatchBuilder = _Builder


class _Counted(memory_records.MemoryRecordsBuilder):  # type: ignore[misc]
    """Numbers the records of a batch, those that were laid out together all at once."""

    def append(self, timestamp: int | None, key: bytes | None, value: Any, headers: Any = ()) -> Any:
        made = super().append(timestamp, key, value, headers)
        if made is not None:
            self.skip(packing.records(headers) - 1)
        return made


record_accumulator.MemoryRecordsBuilder = _Counted


class _Waker(kafka_sender.Sender):  # type: ignore[misc]
    """The thread that sends.  It neither wakes nor looks for what it will look at by itself in time.

    The library wakes it for every batch, and it asks every partition at each step of each request: a third
    of a collector's time.
    """

    _until = float("inf")

    def _soon(self) -> bool:
        return 0 < self._until - time.monotonic() <= LINGER_MS / 1000

    def _send_producer_data(self, now: float | None = None) -> float:
        if not self._soon():
            self._until = float("inf")
            wait_ms: float = super()._send_producer_data(now)
            # Whoever added a batch since that looked found no time here, and woke it.
            self._until = time.monotonic() + wait_ms / 1000
        return max(0.0, self._until - time.monotonic()) * 1000

    def wakeup(self) -> None:
        """Wake it, unless it looks before what was just added has waited its time."""
        if self._until > time.monotonic() + LINGER_MS / 1000:
            super().wakeup()


kafka_producer.Sender = _Waker


def _decompress(batch: Any) -> None:
    """Decompress the records of a batch, once.

    The library's own way has no bound, and copies them three times.
    """
    if not batch._decompressed and batch.compression_type != batch.CODEC_NONE:
        with memoryview(batch._buffer) as whole, whole[batch._pos :] as data:
            batch._buffer = packing.plain(_KINDS.get(batch.compression_type), data, MAX_BATCH_BYTES)
        batch._pos = 0
    batch._decompressed = True


default_records.DefaultRecordBatch._maybe_uncompress = _decompress


class CorruptBatchError(errors.CorruptRecordError):  # type: ignore[misc]
    """A batch could not be unpacked: in which partition, and from which offset on."""

    def __init__(self, place: TopicPartition, offset: int, why: BaseException) -> None:
        super().__init__(f"{place.topic}/{place.partition}@{offset}: {why}")
        self.place = place
        self.offset = offset


def _take(part: Any, most: int | None = None, take: Any = Fetcher.PartitionRecords.take) -> Any:
    """The next records of a partition.  Whatever a hostile batch makes of the library's parser is told as one
    error that says where it was."""
    try:
        return take(part, most)
    except Exception as error:  # noqa: BLE001 - of any kind: bad text, bad lengths, bad compression
        raise CorruptBatchError(part.topic_partition, part.next_fetch_offset, error) from None


Fetcher.PartitionRecords.take = _take


def _secret(path: str, key: str) -> str | None:
    """The first line of a file.  Raises ConfigError where it cannot be read or is empty."""
    if not path:
        return None
    try:
        text = Path(path).read_text("utf-8").partition("\n")[0].strip("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"kafka.{key}: {path}: {getattr(error, 'strerror', None) or error}") from None
    if not text:
        raise ConfigError(f"kafka.{key}: {path} is empty")
    return text


def _file(path: str, key: str) -> str | None:
    if path and not Path(path).is_file():
        raise ConfigError(f"kafka.{key}: {path} is no file")
    return path or None


def settings(config: Config, client: str) -> dict[str, Any]:
    """The keyword arguments that every client is made with.  ``client`` is how brokers' logs name it.

    Raises ConfigError on files that cannot be read and on settings that contradict each other.
    """
    if util.crc32c_c is None:
        raise ConfigError("crc32c is not installed: Kafka's checksums would take a second for 6 MB")
    with_sasl = config.security_protocol.startswith("SASL")
    if with_sasl != bool(config.sasl_mechanism):
        raise ConfigError(
            f"kafka.sasl_mechanism is {config.sasl_mechanism!r}, "
            f"kafka.security_protocol is {config.security_protocol!r}"
        )
    if with_sasl and not (config.sasl_username and config.sasl_password_file):
        raise ConfigError("kafka.sasl_mechanism needs kafka.sasl_username and kafka.sasl_password_file")
    return {
        "bootstrap_servers": list(config.bootstrap_servers),
        "client_id": client,
        "bootstrap_timeout_ms": config.connect_timeout_s * 1000,
        "reconnect_backoff_ms": 50,
        "reconnect_backoff_max_ms": 1000,
        "security_protocol": config.security_protocol,
        "ssl_cafile": _file(config.ssl_cafile, "ssl_cafile"),
        "ssl_certfile": _file(config.ssl_certfile, "ssl_certfile"),
        "ssl_keyfile": _file(config.ssl_keyfile, "ssl_keyfile"),
        "ssl_password": _secret(config.ssl_password_file, "ssl_password_file"),
        "ssl_check_hostname": config.ssl_check_hostname,
        "sasl_mechanism": config.sasl_mechanism or None,
        "sasl_plain_username": config.sasl_username or None,
        "sasl_plain_password": _secret(config.sasl_password_file, "sasl_password_file"),
    }


def sending(config: Config, client: str) -> dict[str, Any]:
    """The keyword arguments of a producer."""
    return settings(config, client) | {
        "acks": "all",
        "enable_idempotence": True,
        "allow_auto_create_topics": False,
        "compression_type": None if config.compression == "none" else config.compression,
        "linger_ms": LINGER_MS,
        "batch_size": BATCH_BYTES,
        "max_request_size": MAX_RECORD_BYTES,
        "max_block_ms": BLOCK_MS,
        "delivery_timeout_ms": config.delivery_timeout_s * 1000,
        "metrics_enabled": False,
    }


def reading(config: Config, client: str, more: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments of a consumer: nothing is committed or created that was not asked for."""
    return (
        settings(config, client)
        | {
            "allow_auto_create_topics": False,
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
            "partition_assignment_strategy": [RangePartitionAssignor],
            "session_timeout_ms": config.session_timeout_ms,
            "heartbeat_interval_ms": config.heartbeat_ms,
            "max_partition_fetch_bytes": MAX_RECORD_BYTES,
            "metrics_enabled": False,
        }
        | more
    )


def producer(config: Config, client: str = "poolwatch") -> KafkaProducer:
    """A producer, connected.  Raises what ``reaching`` raises."""
    with reaching(config):
        made = _connected(KafkaProducer, sending(config, client))
    _forgive(made._transaction_manager)
    return made


def consumer(config: Config, client: str = "poolwatch", **more: Any) -> KafkaConsumer:
    """A consumer, connected.  ``more`` goes over what is set here.  Raises what ``reaching`` raises."""
    with reaching(config):
        return _connected(KafkaConsumer, reading(config, client, more))


@contextmanager
def admin(config: Config, client: str = "poolwatch") -> Iterator[KafkaAdminClient]:
    """A client for topics, connected; what it raises inside is told as ``reaching`` tells it."""
    with reaching(config):
        made = _connected(KafkaAdminClient, settings(config, client))
        try:
            yield made
        finally:
            made.close()


def _connected(kind: type[Made], given: dict[str, Any]) -> Made:
    """A client; one that could not connect leaves no thread and no socket behind, as the library would."""
    networks: list[KafkaNetClient] = []

    def network(**more: Any) -> KafkaNetClient:
        networks.append(KafkaNetClient(**more))
        return networks[-1]

    try:
        return kind(**given, kafka_client=network)
    except BaseException:
        for one in networks:
            one.close()
            one._manager._net.stop()
        raise


async def commit_from_listener(
    made: KafkaConsumer, offsets: dict[TopicPartition, OffsetAndMetadata], timeout_ms: int
) -> None:
    """``made.commit`` for a rebalance listener: that runs on the client's own thread, which may not wait."""
    await made._coordinator._commit_offsets_sync_async(offsets, timeout_ms)


def abandon(made: KafkaProducer, wait_s: float = 2.0) -> None:
    """End a producer that could not send all it has: what is left fails, and its thread ends."""
    made._sender.force_close()
    made._sender.join(wait_s)
    try:
        made.close(timeout=0)
    except errors.KafkaError:
        logging.getLogger("poolwatch").warning("kafka producer left behind client=%s", made)


def _forgive(manager: Any) -> None:
    """One message that a broker refuses (too large, no right to write) ends that message, not the producer.

    kafka-python 3.0.12 takes every refusal that cannot be tried again for the end of an idempotent producer:
    it fails all that waits and all that is sent after.  The refused batch has used up a sequence number, so
    a new epoch is what is needed, as the Java client does.
    """
    judge = manager.classify_batch_error

    def classify(error: Any, batch: Any, log_start_offset: int = -1) -> str:
        found = judge(error, batch, log_start_offset=log_start_offset)
        kind = error if isinstance(error, type) else type(error)
        if found == manager.ERROR_CLASS_FATAL and kind not in manager._FATAL_ERRORS:
            return str(manager.ERROR_CLASS_NEEDS_EPOCH_BUMP)
        return str(found)

    manager.classify_batch_error = classify


@contextmanager
def reaching(config: Config) -> Iterator[None]:
    """Say in our words what goes wrong with brokers: InputError where they cannot be reached, ConfigError
    where they refuse us."""
    servers = ", ".join(config.bootstrap_servers)
    _COMPLAINTS.begin()
    try:
        yield
    except (errors.AuthorizationError, errors.SaslAuthenticationFailedError) as error:
        raise ConfigError(f"kafka at {servers} refuses us: {error}") from None
    except errors.IllegalStateError:
        raise
    except (errors.KafkaError, OSError) as error:
        why = _COMPLAINTS.cause or str(error)
        raise InputError(
            f"kafka at {servers} was not reached within {config.connect_timeout_s} s: {why}"
        ) from None
    finally:
        _COMPLAINTS.connecting = False
