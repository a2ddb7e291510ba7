"""The peers: one small program each, all running the same agent."""
