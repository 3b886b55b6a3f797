"""The command line in this process, and runs of this computer."""

from tests.typed import cli as cli
from tests.typed import store as store
from tests.typed import trains as trains
