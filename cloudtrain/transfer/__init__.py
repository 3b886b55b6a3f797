"""What goes to a run's host and what comes back: code, log, events and results, each verified."""
