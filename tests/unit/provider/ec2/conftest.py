"""Specs of EC2 runs, and clients whose calls fail as ordered."""

from tests.refusing import rejecting as rejecting
from tests.refusing import spec_of as spec_of
