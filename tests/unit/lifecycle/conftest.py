"""A registry."""

from tests.typed import store as store
