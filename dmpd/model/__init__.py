"""Names, topics, messages, the device record and the rules that apply messages to it: pure, no I/O, no clock."""
