"""Reads the files that people have: compressed, tables, folders, other encodings."""
