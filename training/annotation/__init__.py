"""Annotations of robot episodes by a vision-language model, their checks and their analysis (paper section 4.1)."""
