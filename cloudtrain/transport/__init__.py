"""Ways to run a program on a host."""
