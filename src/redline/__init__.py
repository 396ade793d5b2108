"""Redline: how much load an LLM server carries before it breaks its promise."""
