"""A real Kafka that wants SCRAM passwords over TLS, for the tests of refusals."""

import subprocess

from dmpd.lab.certificates import CertificateFiles
from dmpd.lab.kafka import Kafka

USER, PASSWORD = "dmpd", "right-password"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"
# The controller listener stays plaintext: it is the broker talking to itself.
_PROPERTIES = """
listener.security.protocol.map=CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL
inter.broker.listener.name=SASL_SSL
sasl.enabled.mechanisms=SCRAM-SHA-512
sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={module} required username="broker" password="broker-password";
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
ssl.truststore.type=PEM
ssl.truststore.location={ca}
"""


class SecureKafka(Kafka):
    """As the lab's, but its one listener is SASL_SSL with SCRAM-SHA-512."""

    def __init__(self, *arguments, certificate: CertificateFiles, **options) -> None:
        super().__init__(*arguments, **options)
        self._certificate = certificate

    def _format(self) -> None:
        keystore = self.folder / "broker.pem"
        keystore.write_bytes(self._certificate.key.read_bytes() + self._certificate.cert.read_bytes())
        plain = self._properties.read_text().replace("PLAINTEXT://127.0.0.1", "SASL_SSL://127.0.0.1")
        more = _PROPERTIES.format(module=_SCRAM, keystore=keystore, ca=self._certificate.ca)
        self._properties.write_text(plain + more)
        arguments = ["format", "--standalone", "--cluster-id", "MkU3OEVBNTcwNTJENDM2Qk", "-c", str(self._properties)]
        for user, password in ((USER, PASSWORD), ("broker", "broker-password")):
            arguments += ["--add-scram", f"SCRAM-SHA-512=[name={user},password={password}]"]
        command = self._java("kafka.tools.StorageTool", *arguments)
        subprocess.run(command, check=True, capture_output=True, timeout=60)
