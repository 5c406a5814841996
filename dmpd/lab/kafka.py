"""A real Apache Kafka of one node (KRaft), from the jars of Maven Central."""

import base64
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Final, Literal

from dmpd.lab.layout import KAFKA_LIBS
from dmpd.lab.server import ServerError, takes_connections, unprivileged_user
from dmpd.runtime import exit_codes

_JVM: Final = (
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)
_HERE: Final = Path(__file__).resolve().parent
_FORMAT_TIMEOUT_S: Final = 60
_DOWNLOAD_TIMEOUT_S: Final = 900


class Kafka:
    """A broker in ``folder`` on 127.0.0.1:``port``; its controller takes ``controller_port``. Creates no topics."""

    name = "kafka"
    stop_signal: Literal["TERM", "INT"] = "TERM"

    def __init__(self, folder: Path, *, port: int, controller_port: int, libs: Path = KAFKA_LIBS) -> None:
        self.folder = folder
        self.port = port
        self.bootstrap_servers = f"127.0.0.1:{port}"
        # The jars lie in the checkout, which another user may not be able to read.
        self.user = unprivileged_user("root")
        self._controller_port = controller_port
        self._libs = libs

    def prepare(self) -> None:
        if not self._libs.is_dir():
            raise ServerError(f"no Kafka jars in {self._libs} (make setup fetches them)")
        _program("java", "openjdk-17-jre-headless")
        (self.folder / "tmp").mkdir(parents=True, exist_ok=True)
        template = (_HERE / "kafka.properties.in").read_text()
        for mark, value in (
            ("@PORT@", self.port),
            ("@CONTROLLER_PORT@", self._controller_port),
            ("@DATA@", self.folder / "data"),
        ):
            template = template.replace(mark, str(value))
        self._properties.write_text(template)
        if not (self.folder / "data" / "meta.properties").exists():
            self._format()

    def command(self) -> list[str]:
        return self._java("kafka.Kafka", str(self._properties))

    def is_ready(self) -> bool:
        return takes_connections(self.port)

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    def _java(self, main: str, *arguments: str) -> list[str]:
        # Compressors unpack a library there at each start, and a killed broker leaves it behind.
        temporary = f"-Djava.io.tmpdir={self.folder / 'tmp'}"
        java = _program("java", "openjdk-17-jre-headless")
        return [java, *_JVM, temporary, "-cp", f"{self._libs}/*", main, *arguments]

    def _format(self) -> None:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if cluster_id.startswith("-"):  # would be read as an option
            cluster_id = "A" + cluster_id[1:]
        arguments = ("format", "--standalone", "--cluster-id", cluster_id, "--config", str(self._properties))
        command = self._java("kafka.tools.StorageTool", *arguments)
        done = subprocess.run(command, capture_output=True, text=True, timeout=_FORMAT_TIMEOUT_S, check=False)
        if done.returncode != 0:
            raise ServerError(f"kafka: formatting its storage failed\n{(done.stdout + done.stderr)[-2000:]}")


def fetch_jars(libs: Path = KAFKA_LIBS) -> bool:
    """Download Kafka's jars by Maven, if they are not there. Blocks for up to minutes; all or nothing.

    Returns:
        Whether anything had to be downloaded.

    Raises:
        ServerError: Maven is missing or failed; with the tail of what it said.
    """
    if libs.is_dir():
        return False
    partial = libs.with_name(libs.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    command = [
        _program("mvn", "maven"),
        "-q",
        "-B",
        "-Dstyle.color=never",
        "-f",
        str(_HERE / "kafka.pom.xml"),
        "dependency:copy-dependencies",
    ]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={partial}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_DOWNLOAD_TIMEOUT_S, check=False)
    if done.returncode != 0 or not partial.is_dir():
        raise ServerError(f"kafka: Maven could not fetch the jars\n{(done.stdout + done.stderr)[-2000:]}")
    partial.rename(libs)
    return True


def main() -> int:
    """``python -m dmpd.lab.kafka``: what setup calls; says in a sentence what went wrong."""
    try:
        fetch_jars()
    except ServerError as error:
        print(f"setup: {error}", file=sys.stderr)
        return exit_codes.UNAVAILABLE
    return exit_codes.OK


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ServerError(f"kafka: {name} is not installed (apt-get install {package})")
    return found


if __name__ == "__main__":
    raise SystemExit(main())
