"""An adapter in a folder -> a plain LoRA, or a merged model, measured before it counts as done."""

from __future__ import annotations

from peft_shop.conversion.report import ConversionReport, LayerReport, LogitsCheck
from peft_shop.conversion.verb import convert

__all__ = ["ConversionReport", "LayerReport", "LogitsCheck", "convert"]
