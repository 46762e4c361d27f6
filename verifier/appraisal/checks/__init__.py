"""One module per question; `appraise.py` alone decides their order."""
