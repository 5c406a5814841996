"""Metrics of access."""

from dmpd.runtime.metrics import counter, gauge, histogram

grants_in_force = gauge("dmpd_access_grants_in_force", "Grants that are in force now.")
rules = gauge("dmpd_access_rules", "Rules of grants that the broker holds.")
difference = gauge("dmpd_access_difference", "Rules and users of the broker that are not as the grants want them.")
last_success = gauge(
    "dmpd_access_last_success_seconds", "When the broker's rules were last equal to the grants, Unix time; 0 = never."
)
database_age = gauge("dmpd_access_database_age_seconds", "How long ago the database was last read.")
success_age = gauge(
    "dmpd_access_success_age_seconds", "How long ago the broker's rules were last equal to the grants as last read."
)
crl_expires = gauge(
    "dmpd_access_crl_expires_seconds",
    "Until the list of revoked certificates (ca.crl_file) ends, and with it everybody's access; 0 = it has ended, or"
    " cannot be read, NaN = it is not watched.",
)
next_end = gauge("dmpd_access_next_end_seconds", "Until the next grant ends; -1 = there is none.")
connects = counter("dmpd_access_connects_total", "Attempts to reach the broker, by outcome.", ("outcome",))
changes = counter("dmpd_access_changes_total", "Changes that the broker made, by kind.", ("kind",))
refusals = counter(
    "dmpd_access_refusals_total", "Changes that the broker refused: it held other rules than we thought."
)
foreign = counter("dmpd_access_foreign_total", "Rules and principals found at the broker that no grant has, removed.")
database_errors = counter("dmpd_access_database_errors_total", "Looks at the database that failed.")
events_dropped = counter("dmpd_access_events_dropped_total", "Lines of the audit lost: too many waited.")
change_seconds = histogram("dmpd_access_change_seconds", "From one message with changes to the broker's answer.")
in_force_seconds = histogram(
    "dmpd_access_in_force_seconds", "From a grant's start, or its making if that is later, to its rule in the broker."
)
end_seconds = histogram("dmpd_access_end_seconds", "From a grant's end to the broker without its rule.")
