"""Poor man's configurator: the words of the command line become globals of the program that reads this file."""

import sys
from ast import literal_eval

for arg in sys.argv[1:]:
    if "=" not in arg:
        print(f"Overriding config with {arg}:")
        exec(open(arg).read())
    else:
        key, val = arg[2:].split("=")
        assert arg.startswith("--") and key in globals(), f"Unknown config key: {key}"
        try:
            globals()[key] = literal_eval(val)
        except (SyntaxError, ValueError):
            globals()[key] = val
