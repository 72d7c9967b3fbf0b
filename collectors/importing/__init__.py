"""Flow records that another collector has decoded, from its Kafka topic: goflow2 and pmacct."""
