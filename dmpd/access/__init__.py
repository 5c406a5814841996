"""Access: grants in the database become rules of the MQTT broker, and end in time."""
