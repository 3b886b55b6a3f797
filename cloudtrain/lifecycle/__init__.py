"""A run from its plan to its end, and what commands do to it on the way: story.py first."""
