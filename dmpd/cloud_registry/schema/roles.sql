-- Least privilege, for an operator to run after each `dmpd migrate` (the roles exist already; names are examples):
--   dmpd_migrate   owns the tables: runs `dmpd migrate`, nothing else
--   dmpd_registry  `dmpd cloud-registry`: reads and writes rows
--   dmpd_read      dmpctl and people: reads rows
GRANT SELECT ON schema_version TO dmpd_registry, dmpd_read;
GRANT SELECT, INSERT, UPDATE, DELETE ON rae, device_session, device_interface, device_attribute, device_event,
        sink_probe, registry_mark, canary_run, canary_state
    TO dmpd_registry;
GRANT SELECT ON rae, device_session, device_interface, device_attribute, device_event, sink_probe, registry_mark,
        canary_run, canary_state
    TO dmpd_read;
