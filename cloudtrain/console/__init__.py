"""The only room that prints. Results go to stdout, everything else to stderr."""
