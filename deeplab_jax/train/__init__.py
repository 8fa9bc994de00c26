"""Training: a readable loop around one pure, jitted, sharded step."""
