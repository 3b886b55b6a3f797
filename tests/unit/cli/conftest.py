"""The command line in this process."""

from tests.typed import cli as cli
from tests.typed import store as store
