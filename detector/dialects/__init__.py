"""Mining protocols: lines in, messages out.  What they look like is declared in ``tables/dialects.toml``."""
