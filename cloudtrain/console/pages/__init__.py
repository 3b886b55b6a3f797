"""What is known, as one page each: lists, summaries, failures, the plan."""
