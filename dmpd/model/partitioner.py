"""Kafka's murmur2, as the Java client computes it (org.apache.kafka.common.utils.Utils.murmur2)."""


def murmur2(data: bytes) -> int:
    """32-bit hash of ``data``, unsigned. Kafka's partition is ``(hash & 0x7fffffff) % partitions``."""
    mask, multiplier = 0xFFFF_FFFF, 0x5BD1_E995
    length = len(data)
    value = 0x9747_B28C ^ length
    whole = length & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * multiplier & mask
        k = (k ^ k >> 24) * multiplier & mask
        value = (value * multiplier & mask) ^ k
    if length > whole:
        value = (value ^ int.from_bytes(data[whole:], "little")) * multiplier & mask
    value = (value ^ value >> 13) * multiplier & mask
    return value ^ value >> 15
