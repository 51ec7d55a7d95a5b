import pytest

from wa.metrics import Counters, exposition


def test_counters_and_gauges_of_every_worker():
    text = exposition({0: {"frames_total": 5, "connections": 2}, 1: {"frames_total": 7}})
    assert "# TYPE wa_frames_total counter" in text
    assert "# TYPE wa_connections gauge" in text
    assert 'wa_frames_total{worker="0"} 5.0' in text
    assert 'wa_frames_total{worker="1"} 7.0' in text
    assert 'wa_connections{worker="1"}' not in text


def test_counters_add_up():
    counters = Counters()
    counters.add("logins_total")
    counters.add("logins_total", 2)
    assert counters.read() == {"logins_total": 3}


def test_a_counter_is_named_as_one():
    with pytest.raises(AssertionError):
        Counters().add("logins")
