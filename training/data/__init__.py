"""Readers and mixtures of robot and multimodal data (paper section 4.1)."""
