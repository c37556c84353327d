"""RLHF-vs-DPO comparison suite: the library. Importing it loads nothing heavy."""
