"""Flow records for the consumers of other collectors' topics: goflow2's."""
