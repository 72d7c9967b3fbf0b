"""Channels of Stratum V2: declared fields of its messages in, jobs and shares out (sv2-spec
05-Mining-Protocol.md).

A target is a channel's, or of all channels of a group; it holds for jobs that come later and for those that
wait for their parent (SetNewPrevHash), not for those that are worked on.  So a job is filed, as
"channel/number", once it is active, with the worth of a share of then.  A job of a group is one of each of
its channels.  A share's header is all there, so it can be hashed.
"""

from collections.abc import Callable
from typing import Any, Final

from detector.checksums import sha256d
from detector.dialects import difficulty
from detector.dialects.messages import Block, Channel, InForce, Job, Submit, turned

MAX_BLOCKS: Final = 8
"""Jobs that keep what a header is built from, of all channels together."""
MAX_BLOCK_BYTES: Final = 16 << 10
_MAX_PREFIX: Final = 64
_U32: Final = 0xFFFFFFFF
MAX_FILED: Final = 16
"""Channels of a group to which a job of the group is filed one by one; more have the worth of their group."""


def jobs(fields: dict[str, Any], force: InForce) -> list[Job]:
    """The jobs that a message makes active; a channel that is opened, or whose target is set, is told as a
    job of the channel's own name."""
    return _ACTS[fields["told"]](fields, force)


def known(force: InForce, filed: dict[str, Job], name: str) -> Job | None:
    """The job of a share that names none that is filed: one of its channel's group, at its channel's worth;
    of a channel that was not seen to open, the job of that number."""
    own, _, number = name.partition("/")
    channel = force.channels.get(own)
    if channel is None:
        return next((job for told, job in filed.items() if told.partition("/")[2] == number), None)
    job = filed.get(f"{channel.group}/{number}")
    if job is None or channel.hashes is None:
        return job
    return Job(name, hashes=channel.hashes, algorithm=job.algorithm)


def share(fields: dict[str, Any], force: InForce) -> Submit | None:
    """The header that was hashed, its words turned as getwork sends them; None where its job is not known."""
    own, number = str(fields["within"]), fields["job"]
    channel = force.channels.get(own)
    block = force.blocks.get(f"{own}/{number}")
    if block is None and channel is not None:
        block = force.blocks.get(f"{channel.group}/{number}")
    if block is None or not block.previous:
        return None
    root = bytes.fromhex(block.root)[::-1]
    if not root:
        if channel is None:
            return None
        root = _root(block, channel.prefix + _octets(fields.get("extranonce", "")))
    built = (
        _u32(fields["version"]) + bytes.fromhex(block.previous)[::-1] + root
        + _u32(fields["ntime"]) + _u32(block.bits) + _u32(fields["nonce"])
    )  # fmt: skip
    return Submit("", "", "", "", None, header=turned(built).hex())


def _root(block: Block, extranonce: str) -> bytes:
    root = sha256d(bytes.fromhex(block.before + extranonce + block.after))
    for leaf in block.path:
        root = sha256d(root + bytes.fromhex(leaf))
    return root


def _u32(number: int) -> bytes:
    return (number & _U32).to_bytes(4, "little")


def _octets(told: str) -> str:
    """Octets in hex as they are kept; nothing of what a line of text may hold instead."""
    return told.lower() if len(told) % 2 == 0 else ""


# -- the server's messages -----------------------------------------------------------------------------------


def _members(force: InForce, name: str) -> list[str]:
    """The channels of a group."""
    return [own for own, channel in force.channels.items() if channel.group == name and own != name]


def _channel(force: InForce, name: str) -> Channel:
    return force.channels.setdefault(name, Channel())


def _open(fields: dict[str, Any], force: InForce) -> list[Job]:
    name, group = str(fields["channel"]), fields.get("group")
    hashes = difficulty.boundary(fields["boundary"])
    force.channels.pop(name, None)
    own = str(group) if type(group) is int else ""
    force.channels[name] = Channel(hashes, own, _octets(fields["prefix"][:_MAX_PREFIX]))
    return [Job(name, hashes=hashes)]


def _target(fields: dict[str, Any], force: InForce) -> list[Job]:
    name, hashes = str(fields["channel"]), difficulty.boundary(fields["boundary"])
    for own in (name, *_members(force, name)):
        _channel(force, own).hashes = hashes
    return [Job(name, hashes=hashes)]


def _prefix(fields: dict[str, Any], force: InForce) -> list[Job]:
    channel = force.channels.get(str(fields["channel"]))
    if channel is not None:
        channel.prefix = _octets(fields["prefix"][:_MAX_PREFIX])
    return []


def _group(fields: dict[str, Any], force: InForce) -> list[Job]:
    for own in fields["members"]:
        channel = force.channels.get(str(own)) if type(own) is int else None
        if channel is not None:
            channel.group = str(fields["channel"])
    return []


def _job(fields: dict[str, Any], force: InForce) -> list[Job]:
    """A job, to be done at once where it tells its least time, else with the parent that names it."""
    name, number = str(fields["channel"]), str(fields["number"])
    block = Block(
        root=fields.get("root", "").lower(), before=_octets(fields.get("before", "")),
        after=_octets(fields.get("after", "")), path=[leaf.lower() for leaf in fields.get("path", ())],
    )  # fmt: skip
    if len(block.before) + len(block.after) + 64 * len(block.path) <= MAX_BLOCK_BYTES:
        force.blocks.pop(f"{name}/{number}", None)
        force.blocks[f"{name}/{number}"] = block
        while len(force.blocks) > MAX_BLOCKS:
            del force.blocks[next(iter(force.blocks))]
    if fields.get("active") is None:
        return []
    channel = force.channels.get(name)
    if channel is not None:
        block.previous, block.bits = channel.previous, channel.bits
    return _active(force, name, number)


def _parent(fields: dict[str, Any], force: InForce) -> list[Job]:
    name, number = str(fields["channel"]), str(fields["number"])
    for own in (name, *_members(force, name)):
        channel = _channel(force, own)
        channel.previous, channel.bits = fields["previous"].lower(), fields["bits"] & _U32
        block = force.blocks.get(f"{own}/{number}")
        if block is not None:
            block.previous, block.bits = channel.previous, channel.bits
    return _active(force, name, number)


def _active(force: InForce, name: str, number: str) -> list[Job]:
    """The job of a channel, of a group and of each of its channels, at their worth of now."""
    some = [*_members(force, name)[:MAX_FILED], name]
    return [Job(f"{own}/{number}", hashes=_channel(force, own).hashes) for own in some]


def _custom(fields: dict[str, Any], force: InForce) -> list[Job]:
    """A job of the client's own, which the server takes."""
    return _active(force, str(fields["channel"]), str(fields["number"]))


_ACTS: Final[dict[str, Callable[[dict[str, Any], InForce], list[Job]]]] = {
    "OpenStandardMiningChannel.Success": _open,
    "OpenExtendedMiningChannel.Success": _open,
    "SetTarget": _target,
    "SetExtranoncePrefix": _prefix,
    "SetGroupChannel": _group,
    "NewMiningJob": _job,
    "NewExtendedMiningJob": _job,
    "SetNewPrevHash": _parent,
    "SetCustomMiningJob.Success": _custom,
}
