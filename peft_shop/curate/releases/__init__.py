"""What each release of peft has."""
