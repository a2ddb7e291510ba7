"""The tracking store of the tests that need one."""

from __future__ import annotations

from tests.support.tracking import store, tracking_uri

__all__ = ["store", "tracking_uri"]
