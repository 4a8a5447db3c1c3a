"""The model classes of FunASR, a file each; `table.py` lists them."""
