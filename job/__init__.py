"""The training package: three small MNIST networks, trained, scored and written down by `python -m job.train`.

It runs by itself and is what `cloudtrain` sends to a host. What passes between the two is described in
docs/your-own-job.md; neither imports the other. Read `train.py` first.
"""
