"""Settings: precedence, and what a wrong key or value says."""

from pathlib import Path

import pytest

from wa import config, limits
from wa.errors import LocalError


def load(flags=None, environ=None, toml=None, tmp_path=None):
    file = None
    if toml is not None:
        file = tmp_path / "server.toml"
        file.write_text(toml)
    return config.load(flags or {}, environ or {}, file, default_file=Path("/nonexistent/wa.toml"))


def test_defaults():
    made = load()
    assert made == config.Config()
    assert str(made.listen) == "127.0.0.1:7340"
    assert made.linger_ms == limits.LINGER_MS
    assert made.resolved().workers == min(len(config.usable_cores()), limits.WORKERS_MAX)
    assert load({"workers": 3}).resolved().workers == 3


def test_flag_beats_environment_beats_file_beats_default(tmp_path):
    toml = 'linger_ms = 1\nworkers = 1\nlog_level = "error"\n'
    made = load({"linger_ms": 3, "workers": None}, {"WA_LINGER_MS": "2", "WA_WORKERS": "2"}, toml, tmp_path)
    assert (made.linger_ms, made.workers, made.log_level, made.log_format) == (3, 2, "error", "text")


def test_default_file_is_read_when_there(tmp_path):
    (tmp_path / "wa.toml").write_text("workers = 5\n")
    assert config.load({}, {}, default_file=tmp_path / "wa.toml").workers == 5


def test_file_named_by_environment(tmp_path):
    (tmp_path / "other.toml").write_text('listen = "[::1]:80"\n')
    made = load(environ={"WA_CONFIG": str(tmp_path / "other.toml")})
    assert made.listen == config.Endpoint("::1", 80)
    assert str(made.listen) == "[::1]:80"


def test_named_file_must_exist(tmp_path):
    with pytest.raises(LocalError, match="cannot read"):
        config.load({}, {}, tmp_path / "missing.toml")


def test_file_that_is_not_toml(tmp_path):
    with pytest.raises(LocalError, match="not TOML"):
        load(toml="workers: 3", tmp_path=tmp_path)


@pytest.mark.parametrize(
    ("typed", "nearest"), [("worker", "workers"), ("linger", "linger_ms"), ("datadir", "data_dir")]
)
def test_unknown_key_names_the_nearest(typed, nearest, tmp_path):
    with pytest.raises(LocalError, match=f"key {typed}: no such setting; did you mean {nearest}?"):
        load(toml=f"{typed} = 1\n", tmp_path=tmp_path)


def test_environment_refuses_near_misses_only():
    with pytest.raises(LocalError, match="WA_WORKER: no such setting; did you mean WA_WORKERS"):
        load(environ={"WA_WORKER": "1"})
    assert load(environ={"WA_DEBUG": "1", "WAYLAND": "x"}) == config.Config()


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"WA_WORKERS": "many"}, "WA_WORKERS: expected a whole number"),
        ({"WA_WORKERS": "257"}, "from 0 to 256"),
        ({"WA_LINGER_MS": "5000"}, "WA_LINGER_MS: expected"),
        ({"WA_LISTEN": "7340"}, "expected host:port"),
        ({"WA_LISTEN": "h:99999"}, "expected host:port"),
        ({"WA_OVERFLOW": "drop"}, "expected one of refuse, prune"),
        ({"WA_CODE_TRANSPORT": "pigeon"}, 'expected "console"'),
        ({"WA_LOG_LEVEL": "loud"}, "expected one of debug"),
        ({"WA_DATA_DIR": ""}, "expected text"),
    ],
)
def test_wrong_values_name_the_source(environ, message):
    with pytest.raises(LocalError, match=message):
        load(environ=environ)


def test_boolean_is_not_a_number(tmp_path):
    with pytest.raises(LocalError, match="workers: expected a whole number"):
        load(toml="workers = true\n", tmp_path=tmp_path)


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("False", False), ("0", False)])
def test_switches(text, value, tmp_path):
    assert load(environ={"WA_TRACE": text}).trace is value
    assert load(toml="trace = true\n", tmp_path=tmp_path).trace is True
    with pytest.raises(LocalError, match="WA_TRACE: expected true or false"):
        load(environ={"WA_TRACE": "yes"})


def test_code_transport_to_a_file():
    made = load(environ={"WA_CODE_TRANSPORT": "file:/run/codes"})
    assert made.code_transport == config.CodeTransport(Path("/run/codes"))
    assert str(made.code_transport) == "file:/run/codes"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", config.Push()),
        ("file:/tmp/pushes", config.Push("file", "/tmp/pushes")),
        ("webhook:https://push.example.org/wake?key=1", config.Push("webhook", "https://push.example.org/wake?key=1")),
        ("webhook:http://127.0.0.1:8080/", config.Push("webhook", "http://127.0.0.1:8080/")),
        ("webhook:http://[::1]:8080/", config.Push("webhook", "http://[::1]:8080/")),
        ("webhook:http://localhost/", config.Push("webhook", "http://localhost/")),
    ],
)
def test_push(text, expected):
    assert load(environ={"WA_PUSH": text}).push == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "file:",
        "fcm",
        "webhook:",
        "webhook:push.example.org",
        "webhook:http://push.example.org/",  # a token in the clear
        "webhook:http://127.0.0.1.example.org/",
        "webhook:http://127.0.0.1@example.org/",
        "webhook:ftp://push.example.org/",
        "webhook:https:///wake",
        "webhook:https://push.example.org/#part",
        "webhook:https://push.example.org/a b",
        "webhook:https://push.example.org:port/",
        "webhook:https://[push/",
    ],
)
def test_push_that_is_none(text):
    with pytest.raises(LocalError, match="push"):
        load({"push": text})


def test_a_push_url_is_not_shown():
    assert "secret" not in repr(load({"push": "webhook:https://push.example.org/secret"}))
