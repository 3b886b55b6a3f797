"""One instance for a run, launched once whatever happens in between."""
