"""Folders of runs made by hand."""

from tests.made import made as made
