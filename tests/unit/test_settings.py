"""Settings come from arguments, then from the environment, then from defaults, and are checked."""

from __future__ import annotations

import pickle
from ipaddress import ip_network
from typing import Any

import pytest
from pydantic import ValidationError

from agent_server.settings import Settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"AGENT_SERVER_{name.upper()}", raising=False)


def test_defaults_listen_on_loopback_and_trust_nobody() -> None:
    settings = Settings()
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 8000, 1)
    assert settings.trusted_proxies == settings.trusted_networks == ()
    assert settings.max_body_bytes == 16 * 1024 * 1024


def test_an_argument_wins_over_the_environment_and_the_environment_over_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AGENT_SERVER_PORT", "9000")
    monkeypatch.setenv("AGENT_SERVER_HOST", "0.0.0.0")
    settings = Settings(port=9001)
    assert (settings.port, settings.host) == (9001, "0.0.0.0")


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_SERVER_PORT", "")
    assert Settings().port == 8000


def test_trusted_proxies_are_a_comma_separated_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_SERVER_TRUSTED_PROXIES", "10.0.0.0/8, 127.0.0.1,::1,")
    settings = Settings()
    assert settings.trusted_proxies == ("10.0.0.0/8", "127.0.0.1", "::1")
    assert settings.trusted_networks == tuple(map(ip_network, ("10.0.0.0/8", "127.0.0.1/32", "::1/128")))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "eight"),
        ("port", "65536"),
        ("workers", "0"),
        ("store", "redis"),
        ("log_level", "loud"),
        ("max_body_bytes", "0"),
        ("max_concurrent_runs", "-1"),
        ("sync_threads", "0"),
        ("heartbeat_seconds", "0"),
        ("send_timeout_seconds", "nan"),
        ("shutdown_grace_seconds", "-1"),
        ("tool_items_v1", "hosted"),
        ("event_source", "astream"),
        ("trusted_proxies", "proxy.example.org"),
        ("trusted_proxies", "10.0.0.1/8"),
    ],
)
def test_a_bad_value_is_refused_by_name(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"AGENT_SERVER_{name.upper()}", value)
    with pytest.raises(ValidationError) as raised:
        Settings()
    assert [error["loc"][0] for error in raised.value.errors()] == [name]


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_settings_are_frozen_and_travel_to_worker_processes() -> None:
    settings = Settings(port=1, trusted_proxies=("::1",))
    assert pickle.loads(pickle.dumps(settings)) == settings
    frozen: Any = settings
    with pytest.raises(ValidationError):
        frozen.port = 2
