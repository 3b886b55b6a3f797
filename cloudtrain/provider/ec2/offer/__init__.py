"""What EC2 could give for a run: types, zones, quotas, prices, images; look-ups alone."""
