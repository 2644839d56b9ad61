"""What a model says, measured: the language evaluation on VLA-IT (paper appendix A.1, Tables 3 to 5).

`caption_scores.py` and `sentence_similarity.py` are modules for `evaluate.load`, which reads them from here offline.
"""
