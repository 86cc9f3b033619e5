"""Rows that no client waits for (the explainer's, the auditor's swaps): computed by a process of their own, which gives
way to the server.

It has its own copy of the model, so that requests share with it neither the interpreter's lock nor the event loop.
"""
