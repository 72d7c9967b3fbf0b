"""What a process may still do once it has dropped its privileges: seen from outside, in a child process."""

import json
import os
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path

import netns
import pytest

from collectors import privileges
from collectors.errors import ConfigError

ROOT = Path(__file__).parents[3]
NET_RAW = 1 << privileges.NET_RAW
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to drop")
network = pytest.mark.skipif(bool(netns.why_not()), reason=netns.why_not())

BEFORE = """
import json, os, sys, time
from pathlib import Path
from collectors import privileges
from collectors.errors import ConfigError, InputError

def tell(**facts):
    print(json.dumps(facts), flush=True)

def status():
    lines = (line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    said = {key: value.strip() for key, value in lines if key[:3] in ("Cap", "Uid", "Gid", "Gro", "NoN")}
    return {k: int(v, 16) if k.startswith("Cap") else v.split() for k, v in said.items()}

def refused(act):
    try:
        act()
    except OSError as error:
        return error.errno
    return 0
"""


@contextmanager
def child(code):
    """A Python process with ``code``; its ``tell`` is read and answered line by line."""
    whole = BEFORE + textwrap.dedent(code)
    with subprocess.Popen(
        [sys.executable, "-c", whole], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        try:
            yield lambda: json.loads(running.stdout.readline()), running.stdin
            running.stdin.close()
            assert running.wait(20) == 0
        finally:
            running.kill()


@root
def test_only_net_raw_is_left_and_there_is_no_way_back():
    with child(
        """
        left = privileges.drop("nobody")
        tell(left=[left.user, sorted(left.capabilities)], **status())
        tell(
            file=refused(lambda: Path("/poolwatch-was-here").write_text("x")),
            shadow=refused(lambda: Path("/etc/shadow").read_text()),
            root=refused(lambda: os.setuid(0)),
            groups=refused(lambda: os.setgroups([0])),
        )
        """
    ) as (hear, _):
        got = hear()
        assert got["left"] == ["nobody", [privileges.NET_RAW]]
        assert got["CapEff"] == got["CapPrm"] == got["CapBnd"] == NET_RAW
        assert got["CapInh"] == got["CapAmb"] == 0
        assert set(got["Uid"]) == {"65534"}
        assert "0" not in got["Gid"]
        assert got["Groups"] == []
        assert got["NoNewPrivs"] == ["1"]
        assert hear() == {"file": 13, "shadow": 13, "root": 1, "groups": 1}


@root
def test_capabilities_go_without_a_user_too():
    with child(
        """
        left = privileges.drop("")
        tell(left=[left.user, sorted(left.capabilities)], **status())
        """
    ) as (hear, _):
        got = hear()
        assert got["left"] == ["root", [privileges.NET_RAW]]
        assert got["CapEff"] == got["CapBnd"] == NET_RAW


@root
def test_a_second_drop_cannot_change_the_user_and_says_so():
    with child(
        """
        privileges.drop("")
        tell(refused=refused(lambda: privileges.drop("nobody")))
        """
    ) as (hear, _):
        assert hear() == {"refused": 1}


@root
def test_a_user_without_privileges_drops_nothing_and_gains_nothing():
    with child(
        """
        os.setgid(65534); os.setuid(65534)
        left = privileges.drop("root")
        tell(left=[left.user, sorted(left.capabilities)], **status())
        """
    ) as (hear, _):
        got = hear()
        assert got["left"] == ["nobody", []]
        assert got["CapEff"] == 0
        assert got["NoNewPrivs"] == ["1"]


@root
def test_a_user_that_is_not_there_is_a_mistake_and_changes_nothing():
    before = Path("/proc/self/status").read_text().partition("CapInh")[2].partition("Seccomp")[0]
    with pytest.raises(ConfigError, match="no-such-user"):
        privileges.drop("no-such-user")
    assert Path("/proc/self/status").read_text().partition("CapInh")[2].partition("Seccomp")[0] == before


@root
@network
def test_capture_goes_on_and_reopens_after_the_drop():
    frame = bytes(range(12)) + b"\x08\x00" + bytes(60)
    with netns.entered():
        netns.veth("pw0", "pw1")
        with child(
            """
            from collectors.packet import afpacket, ring
            from collectors.packet.sources import CaptureConfig
            ring.warm()
            afpacket.LOOK_S = 0.05
            def frames(source, ends):
                n = 0
                while not n and time.monotonic() < ends:
                    n += source.read(0.05).offset.size
                return n
            options = CaptureConfig(block_bytes=1 << 17, blocks=4, block_timeout_ms=10, filter="ip")
            with afpacket.Ring("pw1", options) as source:
                privileges.drop("nobody")
                tell(**status())
                tell(frames=frames(source, time.monotonic() + 10))
                sys.stdin.readline()
                ends = time.monotonic() + 10
                while not (source.reopened and source.up) and time.monotonic() < ends:
                    source.read(0.02)
                tell(reopened=source.reopened, problem=source.problem)
                tell(frames=frames(source, time.monotonic() + 10))
            """
        ) as (hear, say):
            got = hear()
            assert got["CapEff"] == NET_RAW
            assert set(got["Uid"]) == {"65534"}
            with netns.sender("pw0") as wire:
                wire.send(frame)
                assert hear() == {"frames": 1}
            netns.delete("pw1")
            say.write("\n")
            say.flush()
            netns.veth("pw0", "pw1")
            assert hear() == {"reopened": 1, "problem": ""}
            with netns.sender("pw0") as wire:
                wire.send(frame)
                assert hear() == {"frames": 1}


@root
@network
def test_who_lacks_the_capability_is_told_which_and_how():
    with netns.entered():
        netns.veth("pw0", "pw1")
        with child(
            """
            from collectors.packet import afpacket, scapysource
            from collectors.packet.sources import CaptureConfig
            import scapy.layers.all  # Python itself may be out of reach afterwards
            privileges.drop("nobody", frozenset())
            for kind in (afpacket.Ring, scapysource.ScapySource):
                try:
                    kind("pw1", CaptureConfig()).__enter__()
                except InputError as error:
                    tell(told=str(error))
            """
        ) as (hear, _):
            told = hear()["told"]
            assert told.startswith("interface pw1: Operation not permitted; capture needs CAP_NET_RAW")
            assert "setcap cap_net_raw+ep" in told
            assert "AmbientCapabilities=CAP_NET_RAW" in told
            assert "CAP_NET_RAW" in hear()["told"]


@root
def test_what_we_start_has_net_raw_again_and_nothing_else():
    with child(
        """
        import subprocess
        privileges.drop("nobody")
        privileges.hand_down()
        told = subprocess.run(["/bin/cat", "/proc/self/status"], capture_output=True, text=True).stdout
        lines = dict(line.split(":") for line in told.splitlines() if line.startswith(("Cap", "NoNewPrivs")))
        tell(**{key: int(value, 16) for key, value in lines.items()})
        """
    ) as (hear, _):
        got = hear()
        assert got["CapEff"] == got["CapPrm"] == got["CapBnd"] == NET_RAW
        assert got["NoNewPrivs"] == 1
