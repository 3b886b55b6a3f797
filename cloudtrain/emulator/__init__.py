"""An EC2 region on this computer: moto's API in front of machines that one can log in to over real SSH.

Only the server process imports moto and asyncssh. `service.py` is what the rest of cloudtrain uses.
"""
