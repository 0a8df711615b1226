"""Records -> documents: what is said of an answer, a method, a run or a change of the catalog.

The rooms in here decide what is worth saying and in which order; `render` decides how it looks.
"""

from __future__ import annotations

from peft_shop.views.answers import answer_document, answer_records

__all__ = ["answer_document", "answer_records"]
