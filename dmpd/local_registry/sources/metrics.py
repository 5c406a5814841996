"""Metrics of the LAN sources."""

from dmpd.runtime.metrics import counter, gauge

troubles = counter(
    "dmpd_local_registry_source_troubles_total", "Times a LAN source could not read what it watches.", ("source",)
)
lease_lines_bad = gauge("dmpd_local_registry_lease_lines_bad", "Lines of the lease file that make no sense.")
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
