"""IPFIX over TCP and TLS, over loopback: what comes out, and what ends a session."""

import errno
import shutil
import socket
import ssl
import struct
import subprocess
import time

import pytest
from prometheus_client import CollectorRegistry

from collectors.errors import ConfigError
from collectors.netflow.certificates import Certificates
from collectors.netflow.datagrams import STREAM
from collectors.netflow.listening import Tcp, Tls
from collectors.netflow.ports import Ports
from collectors.netflow.receiving import Metrics, Receiving
from collectors.netflow.sessions import CLOSED
from collectors.netflow.udp import address_of

LOCAL = address_of("127.0.0.1")
needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")


def message(number=0, body=b""):
    return struct.pack(">HHIII", 10, 16 + len(body), 0, number, 0) + body


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Site:
    """A worker's receiver with one TCP or TLS port; ``messages`` is all that came."""

    def __init__(self, transport, tcp, tls, allowed):
        self.port = free_port()
        self.transport = transport
        self.registry = CollectorRegistry()
        self.certificates = Certificates(tls)
        self.ports = Ports("127.0.0.1", (0,), each=1, **{transport: self.port})
        self.now = 0.0
        self._tcp, self._allowed = tcp, allowed
        self.messages = []

    def __enter__(self):
        self.ports.__enter__()
        self.receiving = Receiving(
            self.ports.share(0),
            self._tcp,
            self.certificates,
            self._allowed,
            Metrics(self.registry),
            lambda _: None,
        ).__enter__()
        self.receiving._sessions._now_s = lambda: self.now
        return self

    def __exit__(self, *error):
        self.receiving.__exit__(*error)
        self.ports.__exit__(*error)

    def turn(self):
        for block in self.receiving.turn(0.01):
            for i in range(len(block)):
                at, size = int(block.at[i]), int(block.size[i])
                sent = block.data[at : at + size].tobytes()
                assert int(block.port[i]) & STREAM
                self.messages.append((block.addresses[block.exporter[i]], int(block.port[i]) & 0xFFFF, sent))

    def until(self, holds):
        ends = time.monotonic() + 10
        while not holds():
            assert time.monotonic() < ends, (self.closed(), self.messages)
            self.turn()

    def closed(self):
        name = "poolwatch_collector_netflow_sessions_closed_total"
        found = {
            reason: self.registry.get_sample_value(name, {"transport": self.transport, "reason": reason})
            for reason in CLOSED
        }
        return {reason: count for reason, count in found.items() if count}

    def standing(self):
        name = "poolwatch_collector_netflow_sessions"
        return self.registry.get_sample_value(name, {"transport": self.transport})

    def connect(self, source="127.0.0.1"):
        return socket.create_connection(("127.0.0.1", self.port), 10, (source, 0))


def site(transport="tcp", tls=None, allowed=frozenset(), **limits):
    return Site(transport, Tcp(**limits), tls or Tls(), allowed)


def test_messages_come_from_their_exporter_however_they_are_cut():
    sent = [message(n, bytes(n * 37 % 900)) for n in range(200)]
    with site() as here, here.connect() as one, here.connect("127.0.0.2") as two:
        stream = b"".join(sent)
        for at in range(0, len(stream), 777):
            one.sendall(stream[at : at + 777])
            here.turn()
        two.sendall(message(7))
        here.until(lambda: len(here.messages) == 201)
        ports = [s.getsockname()[1] for s in (one, two)]
    assert [m for m in here.messages if m[0] == LOCAL] == [(LOCAL, ports[0], m) for m in sent]
    assert (address_of("127.0.0.2"), ports[1], message(7)) in here.messages


def test_an_exporter_that_dies_in_a_message_loses_that_one_only():
    with site() as here:
        with here.connect() as one, here.connect() as other:
            one.sendall(message(1) + message(2, b"xyz")[:-1])
            here.until(lambda: len(here.messages) == 1)
            one.close()
            here.until(lambda: here.closed() == {"cut": 1})
            other.sendall(message(3))
            here.until(lambda: len(here.messages) == 2)
        here.until(lambda: here.closed() == {"cut": 1, "peer": 1})
        assert here.standing() == 0


def test_a_reset_in_a_message_is_one_too():
    with site() as here:
        with here.connect() as one:
            one.sendall(message(1)[:5])
            here.until(lambda: here.standing() == 1)
            here.turn()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        here.until(lambda: here.closed() == {"cut": 1})


def test_what_is_no_ipfix_ends_the_session_after_what_was():
    with site() as here, here.connect() as one:
        one.sendall(message(1) + b"GET / HTTP/1.1\r\n\r\n" + message(2))
        here.until(lambda: here.closed() == {"framing": 1})
        assert [m for _, _, m in here.messages] == [message(1)]
        assert one.recv(1) == b""


@pytest.mark.parametrize(
    ("first", "after_s", "reason"),
    [(b"", 3601, "idle"), (message(1), 3601, "idle"), (message(1)[:9], 31, "slow")],
)
def test_silence_and_slowness_have_an_end(first, after_s, reason):
    with site() as here, here.connect() as one:
        one.sendall(first)
        here.until(lambda: here.standing() == 1)
        for _ in range(3):
            here.turn()
        here.now = after_s - 2
        here.receiving._sessions.sweep()
        assert here.closed() == {}
        here.now = after_s
        here.receiving._sessions.sweep()
        assert here.closed() == {reason: 1}


def test_a_drop_now_and_then_does_not_make_a_message_less_slow():
    with site() as here, here.connect() as one:
        slow = message(1, bytes(100))
        for second in range(0, 31, 5):
            here.now = float(second)
            one.sendall(slow[second : second + 5])
            ends = time.monotonic() + 0.05
            while time.monotonic() < ends:
                here.turn()
            here.receiving._sessions.sweep()
            assert here.closed() == {}
        here.now = 31.0
        here.receiving._sessions.sweep()
        assert here.closed() == {"slow": 1}


def test_connections_are_bounded_in_all_and_for_an_address():
    with site(most_connections=4, most_connections_of_address=2) as here:
        held = [here.connect(f"127.0.0.{n}") for n in (1, 1, 1, 2, 2, 3)]
        here.until(lambda: here.closed().get("no_room", 0) + here.standing() == 6)
        assert here.standing() == 4
        held[0].sendall(message(1))
        here.until(lambda: len(here.messages) == 1)
        held[0].close()
        here.until(lambda: here.standing() == 3)
        with here.connect() as again:
            again.sendall(message(2))
            here.until(lambda: len(here.messages) == 2)
        for one in held:
            one.close()


def test_without_descriptors_accepting_rests_a_second_and_goes_on(monkeypatch):
    with site() as here, here.connect() as one:
        tried = []

        def none_left(listener):
            tried.append(listener)
            raise OSError(errno.EMFILE, "Too many open files")

        with monkeypatch.context() as patched:
            patched.setattr(socket.socket, "accept", none_left)
            for _ in range(20):
                here.turn()
        name = "poolwatch_collector_netflow_sessions_exhausted_total"
        assert here.registry.get_sample_value(name, {"transport": "tcp"}) == len(tried) == 1
        here.turn()
        assert not here.standing()
        here.now += 2
        here.receiving._sessions.sweep()
        one.sendall(message(1))
        here.until(lambda: len(here.messages) == 1)


def test_who_is_not_listed_is_not_let_in():
    with site(allowed=frozenset({LOCAL})) as here, here.connect() as good, here.connect("127.0.0.9") as bad:
        good.sendall(message(1))
        bad.sendall(message(2))
        here.until(lambda: here.closed() == {"not_listed": 1} and here.messages)
        assert [m for _, _, m in here.messages] == [message(1)]


def test_a_session_that_sends_much_leaves_others_their_turn():
    with site() as here, here.connect() as heavy, here.connect() as light:
        here.until(lambda: here.standing() == 2)
        heavy.setblocking(False)
        flood = message(1, bytes(1384)) * 1000
        light.sendall(message(2))
        seen = 0
        for _ in range(20):
            try:
                heavy.send(flood)
            except BlockingIOError:
                seen += 1
            here.turn()
        assert message(2) in [m for _, _, m in here.messages]


# -- TLS -------------------------------------------------------------------------------------------


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A CA, a server's and an exporter's certificate that it signed, and a stranger's that it did not."""
    folder = tmp_path_factory.mktemp("authority")
    new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30")
    for name in ("ca", "stranger"):
        openssl(
            *new, "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem", "-subj", f"/CN={name}"
        )
    for name in ("server", "exporter"):
        openssl(
            *new, "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem", "-subj", f"/CN={name}",
            "-CA", folder / "ca.pem", "-CAkey", folder / "ca.key", "-addext", "subjectAltName=IP:127.0.0.1",
            "-addext", "basicConstraints=critical,CA:FALSE",
        )  # fmt: skip
    return folder


def tls(folder, **more):
    return Tls(port=1, certificate=str(folder / "server.pem"), key=str(folder / "server.key"), **more)


def client(folder, who=""):
    made = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    if who:
        made.load_cert_chain(folder / f"{who}.pem", folder / f"{who}.key")
    return made


@pytest.fixture
def say(tmp_path):
    """An exporter that is openssl s_client: it sends what it is given, and stays for a moment."""
    running = []

    def start(here, octets, *options):
        process = subprocess.Popen(
            ["openssl", "s_client", "-quiet", "-no_ign_eof", "-connect", f"127.0.0.1:{here.port}", *options],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        running.append(process)
        process.stdin.write(octets)
        process.stdin.flush()
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


@needs_openssl
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_messages_of_s_client_come_over_tls(authority, say, version):
    # Less than the pipe to s_client holds: it reads no more of it before our end has shaken hands.
    sent = [message(n, bytes(500)) for n in range(100)]
    with site("tls", tls(authority)) as here:
        process = say(here, b"".join(sent), version)
        here.until(lambda: len(here.messages) == 100)
        process.stdin.close()
        here.until(lambda: here.closed() == {"peer": 1})
    assert [m for _, _, m in here.messages] == sent


@needs_openssl
@pytest.mark.parametrize(
    "options", [("-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"), ("-cipher", "NULL@SECLEVEL=0", "-tls1_2")]
)
def test_old_tls_and_no_encryption_are_refused(authority, say, options):
    with site("tls", tls(authority)) as here:
        process = say(here, b"", *options)
        ends = time.monotonic() + 10
        while process.poll() is None and time.monotonic() < ends:
            here.turn()
        assert process.returncode not in (0, None)
        assert here.standing() == 0


@needs_openssl
def test_with_a_client_ca_only_those_it_signed_are_heard(authority):
    with site("tls", tls(authority, client_ca=str(authority / "ca.pem"))) as here:
        for who, heard in (("", False), ("stranger", False), ("exporter", True)):
            before = len(here.messages)
            with here.connect() as plain:
                here.until(lambda: here.standing() == 1)
                plain.setblocking(False)
                with client(authority, who).wrap_socket(
                    plain, server_hostname="127.0.0.1", do_handshake_on_connect=False
                ) as one:
                    sent = _spoken(here, one)
                    assert (len(here.messages) > before) == heard
                    assert sent or not heard
            here.until(lambda: here.standing() == 0)
        assert here.closed() == {"handshake": 2, "peer": 1}


def _spoken(here, one):
    """Shake hands and send a message, turn by turn; whether that went."""
    sent = False
    ends = time.monotonic() + 5
    while time.monotonic() < ends and not here.messages and here.standing():
        here.turn()
        try:
            if not sent:
                one.do_handshake()
                one.sendall(message(1))
                sent = True
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            continue
        except OSError:
            return False
    return sent


@needs_openssl
def test_a_handshake_that_does_not_end_holds_up_nobody_and_has_an_end(authority, say):
    with site("tls", tls(authority)) as here, here.connect() as mute, here.connect() as rubbish:
        here.until(lambda: here.standing() == 2)
        rubbish.sendall(b"no TLS at all, whatever comes")
        here.until(lambda: here.closed() == {"handshake": 1})
        say(here, message(1))
        here.until(lambda: here.messages)
        here.now = 11.0
        here.receiving._sessions.sweep()
        assert here.closed()["handshake"] == 2
        assert mute.recv(1) == b""


@needs_openssl
def test_certificates_are_read_again_for_new_connections(authority, say, tmp_path):
    for name in ("server.pem", "server.key"):
        (tmp_path / name).write_bytes((authority / name).read_bytes())
    with site("tls", tls(tmp_path)) as here:
        say(here, message(1))
        here.until(lambda: here.standing() == 1 and here.messages)
        for kind in ("pem", "key"):
            (tmp_path / f"server.{kind}").write_bytes((authority / f"stranger.{kind}").read_bytes())
        here.certificates.take(here.certificates.read())
        process = say(here, message(2), "-verify_return_error", "-CAfile", str(authority / "stranger.pem"))
        here.until(lambda: len(here.messages) == 2)
        assert here.standing() == 2
        assert process.poll() is None
        (tmp_path / "server.key").write_text("nothing")
        with pytest.raises(ConfigError, match=r"server\.key"):
            here.certificates.read()


@needs_openssl
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"certificate": "/nowhere.pem"}, "tls.certificate: /nowhere.pem: No such file"),
        ({"key": "/nowhere.key"}, "tls.key: /nowhere.key: No such file"),
        ({"key": "exporter.key"}, "no certificate with its"),
        ({"client_ca": "server.key"}, "tls.client_ca"),
    ],
)
def test_files_that_will_not_do_are_the_operator_s_mistake(authority, change, told):
    given = {k: v if v.startswith("/") else str(authority / v) for k, v in change.items()}
    files = {"certificate": str(authority / "server.pem"), "key": str(authority / "server.key")} | given
    with pytest.raises(ConfigError, match=told):
        Certificates(Tls(port=1, **files))


def test_a_key_that_is_encrypted_is_not_asked_for_on_the_terminal(tmp_path):
    if not shutil.which("openssl"):
        pytest.skip("needs openssl")
    openssl(
        "req", "-x509", "-newkey", "rsa:2048", "-passout", "pass:secret", "-keyout", tmp_path / "k",
        "-out", tmp_path / "c", "-subj", "/CN=x",
    )  # fmt: skip
    with pytest.raises(ConfigError, match="unencrypted"):
        Certificates(Tls(port=1, certificate=str(tmp_path / "c"), key=str(tmp_path / "k")))


def test_tls_needs_its_files_in_the_configuration():
    with pytest.raises(ValueError, match="needs certificate and key"):
        Tls(port=4740)
