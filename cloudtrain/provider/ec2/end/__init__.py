"""How an instance ends: by its lease, by its run's end, by a cleaning."""
