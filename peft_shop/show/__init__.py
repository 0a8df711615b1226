"""Records -> documents -> terminal, Markdown, HTML, CSV and JSON."""
