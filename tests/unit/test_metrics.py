import pytest

from wa.metrics import Counters, exposition


def test_counters_and_gauges_of_every_worker():
    text = exposition({"0": {"frames": 5, "connections": 2}, "1": {"frames": 7}, "push": {"push_queued": 1}})
    assert "# TYPE wa_frames_total counter" in text
    assert "# TYPE wa_connections gauge" in text
    assert 'wa_frames_total{worker="0"} 5.0' in text
    assert 'wa_frames_total{worker="1"} 7.0' in text
    assert 'wa_connections{worker="1"}' not in text
    assert 'wa_push_queued{worker="push"} 1.0' in text


def test_counters_add_up():
    counters = Counters()
    counters.add("logins")
    counters.add("logins", 2)
    assert counters.read() == {"logins": 3}


def test_a_gauge_is_not_counted():
    with pytest.raises(AssertionError):
        Counters().add("connections")
