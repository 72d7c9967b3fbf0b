"""Ways of telling.  An exporter renders; it decides nothing."""
