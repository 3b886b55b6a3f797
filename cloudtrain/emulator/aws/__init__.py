"""AWS's side of the emulated region: moto's API and what it lacks."""
