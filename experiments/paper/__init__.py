"""Studies of the paper: training runs, tables and figures."""
