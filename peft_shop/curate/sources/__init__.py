"""The committed sources of the catalog, and the rules that they meet."""
