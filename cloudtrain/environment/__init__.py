"""The packages of a program: what a project asks for, resolved here (`asked.py`, `lock.py`), and built on its host."""
