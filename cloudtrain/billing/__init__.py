"""What a run costs, and when its machine ends."""
