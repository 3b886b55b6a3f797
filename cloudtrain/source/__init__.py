"""What is sent to a host: the files of a folder, what stays at home, and their hashes."""
