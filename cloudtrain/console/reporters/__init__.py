"""What happens now, as it happens: for a screen, a plain log, or a program (JSON lines)."""
