"""Everything that peft itself rules."""
