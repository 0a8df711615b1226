"""Recipe -> configuration for one model: what was changed, why, and what is refused."""
