"""Mining protocols: bytes in, messages out."""
