"""Metrics of the LAN sources."""

from dmpd.runtime.metrics import counter, gauge

troubles = counter(
    "dmpd_local_registry_source_troubles_total", "Times a LAN source could not read what it watches.", ("source",)
)
lease_lines_bad = gauge("dmpd_local_registry_lease_lines_bad", "Lines of the lease file that make no sense.")
lease_datagrams = counter(
    "dmpd_local_registry_lease_datagrams_total",
    "Datagrams of dnsmasq's script received, by fate: taken, bad, oversized.",
    ("fate",),
)
feed_overflows = counter(
    "dmpd_local_registry_neighbour_overflows_total", "Times the kernel's events came too fast; each ends in a resync."
)
resyncs = counter("dmpd_local_registry_neighbour_resyncs_total", "Dumps of the kernel's links and neighbours.")
stations_refused = counter(
    "dmpd_local_registry_stations_refused_total", "Sightings of MACs beyond what the neighbour table holds."
)
pokes = counter(
    "dmpd_local_registry_pokes_total", "Datagrams sent to provoke a sign of life, by outcome.", ("outcome",)
)
searches = counter(
    "dmpd_local_registry_ssdp_searches_total",
    "SSDP searches, by whom they ask: all, one device, or none because they failed or were too many.",
    ("whom",),
)
ssdp_datagrams = counter(
    "dmpd_local_registry_ssdp_datagrams_total",
    "SSDP datagrams received, by fate: taken, ignored, over_rate, stranger (no MAC known), error.",
    ("fate",),
)
urls_refused = counter(
    "dmpd_local_registry_urls_refused_total",
    "URLs of descriptions not fetched, by reason: form, other_host, not_on_lan, other_mac, too_many.",
    ("reason",),
)
descriptions = counter(
    "dmpd_local_registry_descriptions_total", "Descriptions of devices asked for, by outcome.", ("outcome",)
)
