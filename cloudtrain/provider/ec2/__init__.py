"""EC2: look-ups, launch, trust, release. The only importer of boto3."""
