-- Least privilege for access, after roles.sql (the roles exist already; names are examples):
--   dmpd_access    `dmpd access`: reads grants, writes the audit
--   dmpd_operator  `dmpctl access`: grants and revokes
--   dmpd_registry  `dmpd cloud-registry`: removes what is older than cloud_registry.retention.access_hours. It is neither
--                  who grants nor who enforces, and it can forge nothing: nobody changes the audit
--   dmpd_read      dmpctl and people: reads rows
GRANT SELECT ON schema_version TO dmpd_access, dmpd_operator;
GRANT SELECT ON access_grant, access_user, access_change, access_kick, access_event TO dmpd_access;
GRANT INSERT ON access_event TO dmpd_access;
GRANT DELETE ON access_kick TO dmpd_access;
GRANT SELECT, INSERT, UPDATE ON access_daemon TO dmpd_access;
GRANT SELECT, INSERT, UPDATE ON access_grant TO dmpd_operator;
GRANT SELECT, INSERT ON access_event, access_user, access_kick TO dmpd_operator;
GRANT SELECT, UPDATE ON access_change TO dmpd_operator;
GRANT SELECT ON access_daemon, rae, device_session TO dmpd_operator;
GRANT SELECT, DELETE ON access_grant, access_event TO dmpd_registry;
GRANT SELECT ON access_grant, access_event, access_user, access_change, access_daemon TO dmpd_read;
