"""The way to an instance: one that boots, one of the user's own, one that was lost."""
