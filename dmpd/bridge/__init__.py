"""MQTT to Kafka, without loss and in order. Begin reading at ``uplink``."""
