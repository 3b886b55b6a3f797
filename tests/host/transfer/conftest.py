"""Hosts that play what a test wants."""

from tests.unit.transfer.test_pull import dest as dest
from tests.unit.transfer.test_pull import host as host
from tests.unit.transfer.test_push import place as place
