"""How figures are said to people."""


def counted(n: int, what: str) -> str:
    """``1 record``, ``2 records``; ``what`` in the singular, of those that take an s."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
