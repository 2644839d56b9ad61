"""The two-stage training recipe (paper section 3.2)."""
