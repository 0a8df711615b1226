"""For maintainers: what makes and checks the catalog; nothing on the query side imports it."""
