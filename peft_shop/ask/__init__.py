"""The question and its answer: reading, contenders, judging, standing, reasons, advice."""
