"""Whether an adapted configuration works on an architecture: tried, and written down.

Only maintainers run it. It trains, saves and reloads adapters on tiny models of every
architecture in the zoo; reading and comparing what is on file needs no torch.
"""
