"""AG-UI 1.0: one front end and one agent, over Server-Sent Events."""
