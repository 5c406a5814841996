"""The configuration that the lab writes for dmpd's own daemons (``dmpd.yaml``), and where their health is asked."""

import sys
from pathlib import Path
from typing import Any

import yaml

from dmpd.lab.certificates import CertificateAuthority
from dmpd.lab.kafka import Kafka
from dmpd.lab.state import LabFolder

PARTITIONS = 4
"""Of the lab's topics: one worker each, and this is a machine of few cores."""


def bridge_health(folder: LabFolder) -> str:
    return f"unix:{folder.run / 'bridge.sock'}"


def cloud_registry_health(folder: LabFolder) -> str:
    return f"unix:{folder.run / 'cloud-registry.sock'}"


def access_health(folder: LabFolder) -> str:
    return f"unix:{folder.run / 'access.sock'}"


def canary_health(folder: LabFolder) -> str:
    return f"unix:{folder.run / 'canary.sock'}"


def simulate_health(folder: LabFolder) -> str:
    return f"unix:{folder.simulate / 'control.sock'}"


def write(
    folder: LabFolder, *, kafka: Kafka, mosquitto_port: int, authority: CertificateAuthority, conninfo: str
) -> Path:
    """Write ``dmpd.yaml`` of this lab; returns its path."""
    certificate = authority.client("svc-bridge")
    access = authority.client("svc-access")
    canary = authority.client("svc-canary")
    content: dict[str, Any] = {
        "kafka": {"bootstrap_servers": kafka.bootstrap_servers},
        "topics": {"partitions": PARTITIONS, "replication_factor": 1, "min_insync_replicas": 1},
        "mqtt": {
            "port": mosquitto_port,
            "ca_file": str(certificate.ca),
            "cert_file": str(certificate.cert),
            "key_file": str(certificate.key),
        },
        "database": {"conninfo": conninfo},
        "bridge": {"health_bind": bridge_health(folder)},
        "cloud_registry": {"health_bind": cloud_registry_health(folder)},
        "access": {
            "health_bind": access_health(folder),
            "cert_file": str(access.cert),
            "key_file": str(access.key),
        },
        "canary": {
            "health_bind": canary_health(folder),
            "certificates_dir": str(folder.tls),
            "service_cert_file": str(canary.cert),
            "service_key_file": str(canary.key),
        },
    }
    content["ca"] = {
        "folder": str(folder.tls),
        "crl_file": str(folder.mosquitto / "crl.pem"),
        "reload_command": [
            *(sys.executable, "-m", "supervisor.supervisorctl", "-c", str(folder.supervisor_config)),
            *("signal", "HUP", "mosquitto"),
        ],
    }
    folder.config.write_text(yaml.safe_dump(content, sort_keys=False))
    return folder.config
