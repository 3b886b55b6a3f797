"""A training package in a folder of its own."""

from tests.unit.run_folder.test_code_copy import package as package
