"""What access needs of a broker's rules: the twin and Mosquitto's dynamic security pass the same tests."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from msgspec import structs

from dmpd.access import dynsec
from dmpd.access.acl_file import AclFile
from dmpd.access.broker import BrokerRefusedError, DropRule, DropUser, PutBase, PutRule, PutUser
from dmpd.access.memory import MemoryRules
from dmpd.access.plan import changes, difference, wanted
from dmpd.lab.layout import ETC
from dmpd.model.grants import rules
from dmpd.runtime.mqtt import MqttClient
from dmpd.runtime.mqtt_memory import MemoryBroker
from dmpd.runtime.settings import MqttSettings
from tests.support.access import Party, start_dynsec
from tests.support.grants import S1, S2, at, grant
from tests.support.services import public_folder

pytestmark = pytest.mark.services
NOT_AUTHORIZED, KICKED = 0x87, 0x98
INFO, RSP, CMD = f"dmp/v1/R1/{S1}/info", f"dmp/v1/R1/{S1}/rsp/u-a", f"dmp/v1/R1/{S1}/cmd/u-a"


class Twin:
    """A broker in memory, whose rules are enforced on its clients."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        rules = MemoryRules(AclFile((ETC / "mosquitto" / "acl").read_text()), on_kick=self.broker.kick)
        self.broker.allow = rules.allows
        self.broker.allow_subscribe = lambda principal, pattern: rules.allows(principal, "subscribe", pattern)
        self.connect_access = rules.connect

    def party(self, name):
        return Party(name, self.broker.connect, MqttSettings())


class Real:
    def __init__(self, service) -> None:
        self._service = service

    async def connect_access(self):
        return await dynsec.connect(self._service.settings("svc-access"), answer_timeout_s=10)

    def party(self, name):
        return Party(name, MqttClient.connect, self._service.settings(name))


@pytest.fixture(scope="module")
def broker_service():
    with public_folder() as folder, start_dynsec(folder) as service:
        yield service


@pytest.fixture(params=["twin", "mosquitto"])
def run(request):
    """Runs a coroutine function with the bench and an access connection to an empty broker."""

    def start(test):
        async def main():
            kind = request.param
            bench = Twin() if kind == "twin" else Real(request.getfixturevalue("broker_service"))
            async with empty(bench) as access:
                await test(bench, access)

        asyncio.run(main())

    return start


@asynccontextmanager
async def empty(bench):
    access = await bench.connect_access()
    await clear(access)
    try:
        yield access
    finally:
        await access.close()


async def clear(access):
    held = await access.read()
    for change in changes(wanted((), ()), held):
        await access.apply(change)
    for user in (await access.read()).users:
        await access.apply(DropUser(user))


async def apply(access, *found, minute=1.0, users=()):
    """Make the broker hold what these grants give, and nothing else."""
    target = wanted(rules(found, at(minute)), users)
    for change in changes(target, await access.read()):
        await access.apply(change)
    assert difference(target, await access.read()) == 0


def test_what_is_put_is_read_back_the_same(run):
    async def test(bench, access):
        found = [
            grant("aaaa", "u-a", level="command"),
            grant("bbbb", "u-a", session=None, level="command"),
            grant("cccc", "u-b", session=S2, level="exclusive"),
            grant("dddd", "u-b", session="rae", level="read"),
        ]
        target = wanted(rules(found, at(1)), ["u-z"])
        for change in changes(target, await access.read()):
            await access.apply(change)
        held = await access.read()
        assert held.base
        assert held.rules == target.rules
        assert held.users == {"u-a": {"aaaa", "bbbb"}, "u-b": {"cccc", "dddd"}, "u-z": frozenset()}

    run(test)


def test_more_rules_than_fit_into_one_answer_are_read(run):
    async def test(bench, access):
        found = [grant(f"{number:04}", f"u-{number}") for number in range(120)]
        await apply(access, *found)
        assert len((await access.read()).rules) == 120

    run(test)


def test_a_change_of_something_that_is_not_there_is_refused(run):
    async def test(bench, access):
        [rule] = rules([grant()], at(1))
        await access.apply(PutBase())
        await access.apply(PutBase())
        for change in (
            PutRule(rule, exists=True),
            DropRule("aaaa"),
            PutUser("u-a", (), exists=True),
            PutUser("u-a", ("aaaa",), exists=False),
            DropUser("u-a"),
        ):
            with pytest.raises(BrokerRefusedError):
                await access.apply(change)
        await access.apply(PutRule(rule, exists=False))
        with pytest.raises(BrokerRefusedError):
            await access.apply(PutRule(rule, exists=False))

    run(test)


def test_several_changes_at_one_go_are_done_in_their_order(run):
    async def test(bench, access):
        found = [grant(f"{number:04}", f"u-{number}") for number in range(10)]
        await access.apply(PutBase())
        target = wanted(rules(found, at(1)), ())
        await access.apply_all(changes(target, await access.read()))
        assert difference(target, await access.read()) == 0
        with pytest.raises(BrokerRefusedError):
            await access.apply_all([DropUser("u-none"), DropUser("u-0")])
        await access.apply_all(changes(wanted((), ()), await access.read()))
        assert (await access.read()).rules == {}

    run(test)


def test_a_grant_lets_see_and_command_one_session_until_it_is_taken_away(run):
    async def test(bench, access):
        rae = await bench.party("R1").connect()
        await rae.subscribe("dmp/v1/R1/+/cmd/+")
        await apply(access, users=["u-a"])
        user = await bench.party("u-a").connect()
        assert await user.subscribe(INFO, RSP, "#") == [NOT_AUTHORIZED] * 3
        await apply(access, grant(level="command"))
        assert await user.ended() == KICKED
        user = await bench.party("u-a").connect()
        assert await user.subscribe(INFO, RSP) == [1, 1]
        assert await user.subscribe("#", "dmp/v1/R1/+/info", f"dmp/v1/R1/{S2}/info") == [NOT_AUTHORIZED] * 3
        await rae.publish(INFO, b"seen")
        await rae.publish(RSP, b"answered")
        assert await user.hears(INFO, b"seen")
        assert await user.hears(RSP, b"answered")
        assert await user.publish(CMD, b"asked") == 0
        assert await rae.hears(CMD, b"asked")
        assert await user.publish(f"dmp/v1/R1/{S2}/cmd/u-a") == NOT_AUTHORIZED
        assert await user.publish(f"dmp/v1/R1/{S1}/cmd/u-b") == NOT_AUTHORIZED
        assert await user.publish("dmp/v1/u-a/rae/info") == NOT_AUTHORIZED
        await apply(access, users=["u-a"])
        assert await user.ended() == KICKED
        again = await bench.party("u-a").connect()
        assert await again.subscribe(INFO) == [NOT_AUTHORIZED]
        assert await again.publish(CMD) == NOT_AUTHORIZED
        assert await again.publish("dmp/v1/u-a/rae/info") == NOT_AUTHORIZED
        assert not rae.client.closed.done(), "the RAE noticed nothing"
        await rae.client.disconnect()
        await again.client.disconnect()

    run(test)


def test_a_whole_rae_is_seen_and_commanded_but_for_itself_and_what_others_hold_alone(run):
    async def test(bench, access):
        whole = grant("aaaa", "u-a", session=None, level="command")
        await apply(access, whole, grant("bbbb", "u-b", session=S2, level="exclusive"))
        rae = await bench.party("R1").connect()
        await rae.subscribe("dmp/v1/R1/+/cmd/+")
        user = await bench.party("u-a").connect()
        assert await user.subscribe("dmp/v1/R1/+/info", RSP, f"dmp/v1/R1/{S2}/info", "dmp/v1/R2/+/info") == [
            1,
            1,
            1,
            NOT_AUTHORIZED,
        ]
        assert (
            await user.subscribe("dmp/v1/+/+/info", "dmp/v1/R1/#", "$share/g/dmp/v1/R1/+/info") == [NOT_AUTHORIZED] * 3
        )
        assert await user.publish(CMD) == 0
        assert await user.publish(f"dmp/v1/R1/{S2}/cmd/u-a") == NOT_AUTHORIZED
        assert await user.publish("dmp/v1/R1/rae/cmd/u-a") == NOT_AUTHORIZED
        await rae.publish("dmp/v1/R1/rae/info", b"status")
        assert await user.hears("dmp/v1/R1/rae/info", b"status")
        await apply(access, whole)
        assert not user.client.closed.done(), "more is allowed without ending his connection"
        assert await user.publish(f"dmp/v1/R1/{S2}/cmd/u-a") == 0
        await rae.client.disconnect()
        await user.client.disconnect()

    run(test)


@pytest.mark.parametrize("names", [("aaaa", "zzzz"), ("zzzz", "aaaa")])
def test_what_one_grant_gives_no_other_one_takes_away(run, names):
    """All of a RAE leaves out the RAE itself, which another grant of the same user names."""

    async def test(bench, access):
        whole, itself = names
        both = grant(whole, session=None, level="command"), grant(itself, session="rae", level="command")
        await apply(access, *both)
        user = await bench.party("u-a").connect()
        assert [await user.publish(one) for one in (CMD, "dmp/v1/R1/rae/cmd/u-a")] == [0, 0]
        await apply(access, both[0])
        assert await user.ended() == KICKED
        user = await bench.party("u-a").connect()
        assert [await user.publish(one) for one in (CMD, "dmp/v1/R1/rae/cmd/u-a")] == [0, NOT_AUTHORIZED]
        await user.client.disconnect()

    run(test)


def test_what_waits_for_a_persistent_mqtt_session_is_not_delivered_after_the_end(run):
    async def test(bench, access):
        await apply(access, grant())
        rae = await bench.party("R1").connect()
        user = await bench.party("u-a").connect(clean_start=False, session_expiry_s=600, acking=False)
        await user.subscribe(INFO)
        for number in range(5):
            await rae.publish(INFO, b"%d" % number)
        assert await user.hears(INFO, b"4")
        await user.client.disconnect()
        await rae.publish(INFO, b"queued")
        await apply(access, users=["u-a"])
        again = await bench.party("u-a").connect(clean_start=False, session_expiry_s=600)
        assert again.client.session_present
        assert await again.publish("dmp/v1/R1/x/info") == NOT_AUTHORIZED  # answered: what came first was delivered
        assert again.received == []
        await rae.client.disconnect()
        await again.client.disconnect()

    run(test)


def test_an_extension_disturbs_nobody(run):
    async def test(bench, access):
        one = grant()
        await apply(access, one)
        user = await bench.party("u-a").connect()
        await user.subscribe(INFO)
        await apply(access, structs.replace(one, ends_at=at(90)))
        assert (await access.read()).rules["aaaa"].ends_at == at(90)
        rae = await bench.party("R1").connect()
        await rae.publish(INFO, b"still")
        assert await user.hears(INFO, b"still")
        assert not user.client.closed.done()
        await user.client.disconnect()
        await rae.client.disconnect()

    run(test)


def test_a_kick_ends_the_connection_of_whoever_it_is(run):
    async def test(bench, access):
        await apply(access, grant())
        rae, user = await bench.party("R1").connect(), await bench.party("u-a").connect()
        await access.kick("R1", again=None)
        assert await rae.ended() == KICKED
        await access.kick("u-a", again=PutUser("u-a", ("aaaa",), exists=True))
        assert await user.ended() == KICKED
        assert (await access.read()).users == {"u-a": {"aaaa"}}
        again = await bench.party("R1").connect()
        assert await again.publish("dmp/v1/R1/rae/info") != NOT_AUTHORIZED, "a RAE has its rights by the acl_file"
        await again.client.disconnect()

    run(test)


def test_a_second_connection_takes_the_name_of_the_first(run):
    async def test(bench, access):
        second = await bench.connect_access()
        await asyncio.wait_for(asyncio.shield(access.closed), 10)
        assert access.close_reason_code in (0x8E, 0), "Mosquitto 2.0.11 hangs up without a word"
        await second.close()

    run(test)


def test_a_frozen_broker_is_a_lost_connection(broker_service):
    async def main():
        access = await dynsec.connect(broker_service.settings("svc-access"), answer_timeout_s=0.5)
        broker_service.process.freeze()
        try:
            with pytest.raises(dynsec.BrokerGoneError, match=r"no answer within 0\.5 s"):
                await access.read()
        finally:
            broker_service.process.thaw()
        assert access.closed.done()

    asyncio.run(main())
