"""Requests through a real Kafka, the bridge as a process, a real broker (each of two) and a RAE's engine, and back."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest
from msgspec import Raw

from dmpd.bridge.settings import BridgeSettings
from dmpd.cli.request_sender import RequestSender, new_request
from dmpd.local_registry.engine import Engine
from dmpd.local_registry.memory_control import MemoryControl
from dmpd.local_registry.settings import LocalRegistrySettings
from dmpd.local_registry.sources.simulated import SimulatedLan
from dmpd.model.messages import Response
from dmpd.runtime.health import fetch
from dmpd.runtime.mqtt import MqttClient
from dmpd.runtime.settings import TopicSettings
from tests.support.aio import async_test, until
from tests.support.bridge_main import Sections
from tests.support.bridge_process import BridgeProcess
from tests.support.hivemq import start_hivemq
from tests.support.services import public_folder, start_mosquitto

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]

PARTITIONS = 3


class Rig:
    """A bridge process, and whom a test asks through it."""

    def __init__(self, kafka, broker, folder: Path) -> None:
        self.kafka = kafka
        self.broker = broker
        self.folder = folder
        names = {name: kafka.create_topic(partitions=PARTITIONS) for name in ("info", "rsp", "cmd")}
        self.topics = TopicSettings(**names, info_dead=kafka.create_topic(), partitions=PARTITIONS)
        self.health = f"unix:{folder}/health.sock"
        self.bridge = BridgeProcess(
            Sections(
                bridge=BridgeSettings(health_bind=self.health, retry_first_s=0.1, retry_max_s=0.5),
                kafka=kafka.settings,
                mqtt=broker.settings("svc-bridge"),
                topics=self.topics,
            ),
            folder / "bridge.log",
        )
        self.control = MemoryControl()
        self.rae = f"R{uuid.uuid4().hex[:8]}"

    @asynccontextmanager
    async def engine(self) -> AsyncIterator[Engine]:
        executor = ThreadPoolExecutor(1)
        engine = Engine(
            LocalRegistrySettings(
                rae=self.rae, state_dir=str(self.folder / "rae"), mqtt=self.broker.settings(self.rae)
            ),
            [SimulatedLan(devices=1, rate_per_s=0.0, seed="1")],
            connect=MqttClient.connect,
            executor=executor,
            random=Random(1).random,
            new_session=lambda: str(uuid.uuid4()),
            boot_id="boot",
            slots=asyncio.Semaphore(1),
            control=self.control,
        )
        running = asyncio.create_task(engine.run())
        ticking = asyncio.create_task(self._tick(engine))
        try:
            await until(lambda: engine.uplink.connected and engine.registry.open_sessions(), "the RAE is connected")
            yield engine
        finally:
            await engine.drain(5.0)
            ticking.cancel()
            await asyncio.gather(running, ticking, return_exceptions=True)
            executor.shutdown()

    @staticmethod
    async def _tick(engine: Engine) -> None:
        while True:
            await asyncio.sleep(0.5)
            engine.tick(time.monotonic())

    def ready(self) -> bool:
        try:
            return fetch(self.health, "/readyz")[0] == 200
        except OSError:
            return False

    async def ask(self, verb: str, session: str = "rae", *, name: str | None = None, lifetime_s: int = 60, **args: str):
        """Ask as ``op-eve``; returns the responses, the final one last."""
        said = {key: Raw(json.dumps(value)) for key, value in args.items()}
        request = new_request(self.rae, session, verb, said, name=name)
        heard: list[Response | None] = []

        def blocking() -> None:
            sender = RequestSender(self.kafka.settings, self.topics, "op-eve")
            try:
                sender.ask(request, lifetime_s=lifetime_s, told=heard.append)
            finally:
                sender.close()

        await asyncio.to_thread(blocking)
        assert heard[0] is None, "first it is in Kafka"
        return heard[1:]


@pytest.fixture
def rig(kafka, own_broker, tmp_path):
    one = Rig(kafka, own_broker, tmp_path)
    one.bridge.start()
    yield one
    one.bridge.stop()


@pytest.fixture(params=["mosquitto", pytest.param("hivemq", marks=pytest.mark.slow)])
def own_broker(request):
    start = {"mosquitto": start_mosquitto, "hivemq": start_hivemq}[request.param]
    with public_folder() as folder, start(folder) as service:
        yield service


@pytest.fixture
def ask_all(rig):
    """Runs a scenario with the rig and its engine, once all of it is there."""

    def run(scenario) -> None:
        @async_test
        async def test() -> None:
            await until(rig.ready, "the bridge is ready")
            async with rig.engine() as engine:
                await scenario(engine)

        test()

    return run


def test_requests_go_there_and_back_and_a_repeated_one_brings_the_same_answer(rig, ask_all):
    async def scenario(engine: Engine) -> None:
        (session,) = engine.registry.open_sessions()
        heard = await rig.ask("ping")
        assert [one.outcome for one in heard] == ["accepted", "done"]
        assert json.loads(bytes(heard[-1].result))["devices"] == 1
        launched = await rig.ask("app.launch", session, name="once", app="Netflix")
        again = await rig.ask("app.launch", session, name="once", app="Netflix")
        assert launched[-1].outcome == again[-1].outcome == "done"
        assert rig.control.done.total() == 1
        refused = await rig.ask("app.launch", session, app="../etc")
        assert refused[-1].outcome == "refused"
        assert (await rig.ask("app.stop", session, app="Nope"))[-1].outcome == "failed"

    ask_all(scenario)


def test_a_request_outlives_the_bridge_and_the_raes_absence(rig):
    @async_test
    async def test() -> None:
        await until(rig.ready, "the bridge is ready")
        asking = asyncio.create_task(rig.ask("ping"))
        await until(lambda: status(rig)["requests"]["pending"] == 1, "the bridge has it")
        rig.bridge.kill()
        rig.bridge.start()
        async with rig.engine():
            heard = await asyncio.wait_for(asking, 90)
        assert heard[-1].outcome == "done"
        await until(lambda: status(rig)["requests"]["pending"] == 0, "nothing is left")

    test()


def test_a_request_to_an_absent_rae_expires(rig):
    @async_test
    async def test() -> None:
        await until(rig.ready, "the bridge is ready")
        (expired,) = await rig.ask("ping", lifetime_s=2)
        assert (expired.outcome, expired.epoch) == ("expired", None)
        assert expired.error

    test()


def status(rig: Rig) -> dict:
    try:
        return json.loads(fetch(rig.health, "/status")[1])  # type: ignore[no-any-return]
    except OSError:
        return {"requests": {"pending": -1}}
