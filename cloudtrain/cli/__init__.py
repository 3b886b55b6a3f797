"""The command line: parse, call, render, exit code. Heavy imports wait until a command needs them."""
