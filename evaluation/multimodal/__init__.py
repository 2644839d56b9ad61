"""Multimodal understanding (Table 1): the model inside VLMEvalKit and lmms-eval, and a report of their results."""
