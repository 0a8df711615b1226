"""Candidate x model -> what training it costs."""
