"""An interface's frames by scapy, where AF_PACKET is missing (macOS, the BSDs) and on request: slow.

The only importer of scapy, and not before a source is opened: loading it takes half a second.  It does not
tell what was dropped.  A Block is made per read, with the same contents as the ring's.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

import numpy as np

from collectors.errors import ConfigError, InputError
from collectors.packet.pcapfile import PADDING, Block
from collectors.packet.sources import CaptureConfig, nothing

LOOK_S: Final = 1.0
# Frames in one Block: what scapy reads in about a tenth of a second.
_MOST: Final = 4096
_MOST_BYTES: Final = 1 << 20
_BILLION: Final = 1_000_000_000


def _block(found: list[tuple[bytes, int, int]], snap_length: int) -> Block:
    """``found`` are (frame, stamp, link)."""
    cut = [frame[:snap_length] for frame, _, _ in found]
    captured = np.fromiter(map(len, cut), np.uint32, len(cut))
    return Block(
        # Writable, as a ring's: kernels would be compiled anew for an array that is not.
        np.frombuffer(bytearray(b"".join(cut)) + bytes(PADDING), np.uint8),
        np.cumsum(captured, dtype=np.int64) - captured,
        captured,
        np.fromiter((len(frame) for frame, _, _ in found), np.uint32, len(cut)),
        np.fromiter((t for _, t, _ in found), np.int64, len(cut)),
        np.fromiter((link for _, _, link in found), np.uint16, len(cut)),
    )


class ScapySource(AbstractContextManager["ScapySource"]):
    """Scapy's listening socket on one interface, opened on entering (see ``sources.Source``)."""

    def __init__(
        self,
        interface: str,
        config: CaptureConfig,
        now: Callable[[], float] = time.monotonic,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.interface = interface
        self.up = False
        self.problem = ""
        self.reopened = 0
        self._config = config
        self._now = now
        self._now_ns = now_ns
        self._socket: Any = None
        self._look_at = 0.0

    def __enter__(self) -> "ScapySource":
        from scapy.error import Scapy_Exception  # noqa: PLC0415 - see above

        try:
            self._open()
        except PermissionError as error:
            raise InputError(f"interface {self.interface}: {error.strerror}; CAP_NET_RAW or root") from None
        except Scapy_Exception as error:
            if self._config.filter:
                raise ConfigError(f"capture filter {self._config.filter!r}: {error}") from None
            raise InputError(f"interface {self.interface}: {error}") from None
        except (OSError, ValueError) as error:
            raise InputError(f"interface {self.interface}: {error}") from None
        return self

    def __exit__(self, *error: object) -> None:
        self._close("closed")

    def read(self, wait_s: float = 0.1) -> Block:
        """The frames that are there; none when none came for ``wait_s``."""
        if self._socket is None and not self._again(wait_s):
            return nothing()
        found: list[tuple[bytes, int, int]] = []
        size = 0
        try:
            while len(found) < _MOST and size < _MOST_BYTES and self._ready(0.0 if found else wait_s):
                layer, frame, stamp = self._socket.recv_raw()
                if frame:
                    t_ns = round(float(stamp) * _BILLION) if stamp else self._now_ns()
                    found.append((frame, t_ns, self._link(layer)))
                    size += len(frame)
        except (OSError, EOFError) as error:
            self._close(str(error))
        return _block(found, self._config.snap_length) if found else nothing()

    def statistics(self) -> None:
        """Unknown."""

    def fileno(self) -> int:
        """To wait on, with others; -1 while nothing is open."""
        return -1 if self._socket is None else int(self._socket.fileno())

    def _open(self) -> None:
        import scapy.layers.all  # noqa: F401, PLC0415 - it tells scapy of the link types
        from scapy.config import conf  # noqa: PLC0415 - see above

        # It remembers interfaces by their numbers, and those change.
        conf.ifaces.reload()
        self._links = conf.l2types.layer2num
        self._socket = conf.L2listen(
            iface=self.interface, promisc=self._config.promiscuous, filter=self._config.filter or None
        )
        self.up, self.problem = True, ""

    def _again(self, wait_s: float) -> bool:
        from scapy.error import Scapy_Exception  # noqa: PLC0415 - see above

        if self._now() < self._look_at:
            time.sleep(min(wait_s, self._look_at - self._now()) if wait_s else 0.0)
            return False
        self._look_at = self._now() + LOOK_S
        try:
            self._open()
        except (Scapy_Exception, OSError, ValueError) as error:
            self.problem = str(error)
            return False
        self.reopened += 1
        return True

    def _ready(self, wait_s: float) -> bool:
        return bool(self._socket.select([self._socket], wait_s))

    def _link(self, layer: Any) -> int:
        """LINKTYPE number of scapy's class for a frame's first layer; 65535 where it has none."""
        return int(self._links.get(layer, 0xFFFF))

    def _close(self, problem: str) -> None:
        self.up, self.problem = False, problem
        self._look_at = self._now() + LOOK_S
        opened, self._socket = self._socket, None
        if opened is not None:
            opened.close()
