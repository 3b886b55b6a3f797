"""What the user has set: flags, environment, cloudtrain.toml, pyproject and the user's own file, merged."""
