from dmpd.bridge.retry import Retries
from dmpd.bridge.settings import BridgeSettings

SETTINGS = BridgeSettings(retry_first_s=1.0, retry_max_s=8.0, takeover_retry_first_s=10.0, takeover_retry_max_s=30.0)


def test_doubles_up_to_the_bound_with_jitter_over_the_upper_half() -> None:
    assert [Retries(SETTINGS, lambda: 0.0).delay_s(taken_over=False)] == [0.5]
    retries = Retries(SETTINGS, lambda: 1.0)
    assert [retries.delay_s(taken_over=False) for _ in range(5)] == [1.0, 2.0, 4.0, 8.0, 8.0]
    assert [retries.delay_s(taken_over=True) for _ in range(3)] == [10.0, 20.0, 30.0]


def test_only_a_connection_that_lasted_starts_over() -> None:
    retries = Retries(SETTINGS, lambda: 1.0)
    retries.delay_s(taken_over=False)
    retries.connection_lasted(1.0)
    assert retries.delay_s(taken_over=False) == 2.0
    retries.connection_lasted(61.0)
    assert retries.delay_s(taken_over=False) == 1.0
