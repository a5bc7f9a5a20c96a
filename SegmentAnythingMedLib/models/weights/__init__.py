"""Getting weights onto this machine, trusting them, and taking them away again; see docs/models.md."""
