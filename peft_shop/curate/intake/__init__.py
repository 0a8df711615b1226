"""Raw results -> runs of the catalog."""
