"""What is left in the account, and its end."""
