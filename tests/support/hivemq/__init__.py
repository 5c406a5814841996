"""HiveMQ CE as a second MQTT broker: it enforces what Mosquitto lets pass, so the same tests run on both.

The embedded edition (Maven Central, 100 MB, fetched once into the cache) with the rules of ``etc/mosquitto/acl`` as an
extension in ``Fixture.java``, mutual TLS, and sessions on disk. It comes with a compiler of its own: a JRE is enough.
"""

import fcntl
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from dmpd.lab.certificates import CertificateAuthority
from dmpd.lab.layout import CACHE
from dmpd.lab.server import free_ports, takes_connections, unprivileged_user
from tests.support.services import MosquittoService, start, unavailable

LIBS: Final = CACHE / "hivemq" / "libs"
_HERE: Final = Path(__file__).resolve().parent
_PASSWORD: Final = "of no use: the key lies beside it"
_DOWNLOAD_TIMEOUT_S: Final = 600
_COMPILE_TIMEOUT_S: Final = 120
_OPENED: Final = (
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-opens=jdk.management/com.sun.management.internal=ALL-UNNAMED",
    "--add-exports=java.base/jdk.internal.misc=ALL-UNNAMED",
)
_CONFIGURATION: Final = """<hivemq>
  <listeners><tls-tcp-listener>
    <port>{port}</port>
    <bind-address>127.0.0.1</bind-address>
    <tls>
      <keystore>
        <path>{folder}/server.p12</path><password>{password}</password>
        <private-key-password>{password}</private-key-password>
      </keystore>
      <truststore><path>{folder}/trust.p12</path><password>{password}</password></truststore>
      <client-authentication-mode>REQUIRED</client-authentication-mode>
    </tls>
  </tls-tcp-listener></listeners>
  <mqtt><queued-messages><max-queue-size>100000</max-queue-size></queued-messages></mqtt>
  <anonymous-usage-statistics><enabled>false</enabled></anonymous-usage-statistics>
</hivemq>
"""


class HiveMQ:
    """A broker in ``folder`` on ``port`` of 127.0.0.1; a ``lab.server.Server``."""

    name = "hivemq"
    stop_signal: Literal["TERM", "INT"] = "TERM"

    def __init__(self, folder: Path, *, port: int, authority: CertificateAuthority) -> None:
        self.folder = folder
        self.port = port
        self.user = unprivileged_user("root")
        self._authority = authority

    def prepare(self) -> None:
        for name in ("conf", "data", "extensions", "log"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._write_stores()
        text = _CONFIGURATION.format(port=self.port, folder=self.folder, password=_PASSWORD)
        (self.folder / "conf" / "config.xml").write_text(text)
        self._compile()

    def _write_stores(self) -> None:
        files, password = self._authority.server(), _PASSWORD.encode()
        key = serialization.load_pem_private_key(files.key.read_bytes(), None)
        certificate = x509.load_pem_x509_certificate(files.cert.read_bytes())
        authority = x509.load_pem_x509_certificate(files.ca.read_bytes())
        encryption = serialization.BestAvailableEncryption(password)
        store = pkcs12.serialize_key_and_certificates(b"server", key, certificate, [authority], encryption)  # type: ignore[arg-type]
        (self.folder / "server.p12").write_bytes(store)
        trusted = [pkcs12.PKCS12Certificate(authority, b"authority")]
        (self.folder / "trust.p12").write_bytes(pkcs12.serialize_java_truststore(trusted, encryption))

    def _compile(self) -> None:
        jars = ":".join(str(jar) for jar in LIBS.glob("*.jar"))
        compiler = ("-cp", jars, "org.eclipse.jdt.internal.compiler.batch.Main")
        options = ("-17", "-cp", jars, "-d", str(self.folder / "classes"))
        command = [_java(), *compiler, *options, str(_HERE / "Fixture.java")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_TIMEOUT_S, check=False)
        assert done.returncode == 0, f"Fixture.java: {done.stdout + done.stderr}"

    def command(self) -> list[str]:
        memory = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
        home = (f"-Dhivemq.home={self.folder}", f"-Djava.io.tmpdir={self.folder}")
        classes = f"{self.folder / 'classes'}:{LIBS}/*"
        return [_java(), *memory, *home, *_OPENED, "-cp", classes, "Fixture", str(self.folder)]

    def is_ready(self) -> bool:
        return takes_connections(self.port)


@contextmanager
def start_hivemq(folder: Path) -> Iterator[MosquittoService]:
    """A broker with what the tests need of one; skips, or in CI fails, where it cannot be had."""
    _fetch()
    authority = CertificateAuthority(folder / "tls")
    server = HiveMQ(folder / "hivemq", port=free_ports(1)[0], authority=authority)
    with start(server) as process:
        yield MosquittoService(process, server, authority)  # type: ignore[arg-type]


def _java() -> str:
    java = shutil.which("java")
    assert java is not None
    return java


def _fetch() -> None:
    """Download the jars by Maven, if they are not there; all or nothing, by one test process at a time."""
    maven = shutil.which("mvn")
    if maven is None or shutil.which("java") is None:
        unavailable("HiveMQ needs Java and Maven (apt-get install openjdk-17-jre-headless maven)")
    LIBS.parent.mkdir(parents=True, exist_ok=True)
    with (LIBS.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not LIBS.is_dir():
            _download(str(maven))


def _download(maven: str) -> None:
    partial = LIBS.with_name("libs.partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = [maven, "-q", "-B", "-Dstyle.color=never", "-f", str(_HERE / "pom.xml"), "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={partial}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_DOWNLOAD_TIMEOUT_S, check=False)
    if done.returncode != 0 or not partial.is_dir():
        unavailable(f"Maven could not fetch HiveMQ's jars: {(done.stdout + done.stderr)[-1000:]}")
    partial.rename(LIBS)
