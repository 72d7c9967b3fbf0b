"""Calls of Chia's pool protocol over HTTP, named: its messages say by their path what they are.

Pool protocol 1.0 (Chia-Network/pool-reference SPECIFICATION.md, reference 3.32) is HTTPS: this reads what is
seen where TLS ended before, as behind a proxy of the pool's.  Farmer, harvester and node among themselves
speak TLS alone: of them nothing is read.
"""

import re
from typing import Any, Final

import msgspec

_CALL: Final = re.compile(
    rb"/(pool_info|partials?|farmer)(?:\?(launcher_id=(?:0x)?[0-9a-fA-F]{64}&.*)?)?", re.S
)
_OF_POST: Final = {b"partial": "partial", b"partials": "partial", b"farmer": "farmer"}
_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])
ANSWER: Final = ".answer"


def call(method: bytes, target: bytes) -> str:
    """The call that a request may be, by its path; "" for none."""
    found = _CALL.fullmatch(target[target.rfind(b"/") :] if b"?" not in target else _path(target))
    if found is None:
        return ""
    if method == b"GET":
        known = found[1] == b"farmer" and found[2]
        return "known" if known else "pool_info" if found[1] == b"pool_info" else ""
    return _OF_POST.get(found[1], "") if method in {b"POST", b"PUT"} and found[2] is None else ""


def _path(target: bytes) -> bytes:
    return target[target.rfind(b"/", 0, target.find(b"?")) :]


def messages(name: str, body: bytes) -> list[bytes]:
    """The messages of a body of that call, or (ANSWER behind its name) of what answers it; the body as it is
    where it is none."""
    try:
        said = _OBJECT.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return [body]
    if not name.endswith(ANSWER):
        payload = said.get("payload")
        return [_named(name, payload)] if type(payload) is dict and "launcher_id" in payload else [body]
    name = name.removesuffix(ANSWER)
    if "error_code" in said:
        return [_named("error", said)]
    worth = next((said[k] for k in ("new_difficulty", "current_difficulty") if k in said), None)
    out = [] if worth is None else [_named("difficulty", {"difficulty": worth})]
    if name == "partial" and worth is not None:
        out.insert(0, _named("accepted", {}))
    elif name == "farmer" and "welcome_message" in said:
        out.append(_named("welcome", {}))
    return out or [body]


def _named(name: str, said: dict[str, Any]) -> bytes:
    return msgspec.json.encode({**said, "chia": name})
