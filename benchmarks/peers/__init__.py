"""SeeWhy beside other tools; `compare_tools.py` measures them."""
