"""What stands in runs/NAME on this computer: results, log, receipt (run.json), and what can be read off them."""
