"""The capability probe: tries every feature of every method and writes what it saw.

Only maintainers run it. Probing imports peft and torch; reading and comparing do not.
"""
