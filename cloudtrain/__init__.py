"""Train on an EC2 GPU from your laptop: launch, stream the log, pull verified results, end the instance."""

__version__ = "0.1.0"
