"""What reproduce.py is made of: runs, tables and figures."""
