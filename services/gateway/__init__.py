"""Gateway: the HTTP door; what it answers 2xx is on Kafka."""
