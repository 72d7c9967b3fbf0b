"""Apache Kafka between collectors and detectors: settings, topics, what sends and what reads."""
