"""The text of an HTTP body in, the JSON objects that it holds out."""

import msgspec

from detector.dialects.lines import MAX_BATCH, batch


def objects(text: bytes) -> list[bytes]:
    """The JSON objects of a text that is whole: the one that it is, those of a batch, or those on its
    lines."""
    if text.startswith(b"["):
        return batch(text)
    if b"\n" not in text or is_whole(text):
        return [text] if text.startswith(b"{") else []
    return [line for line in map(bytes.strip, text.split(b"\n")[:MAX_BATCH]) if line.startswith(b"{")]


def is_whole(text: bytes) -> bool:
    """Whether it is one JSON text and nothing else."""
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
