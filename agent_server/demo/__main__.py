"""`python -m agent_server.demo`: serve the demo agent and ask it a question through the openai client."""

from agent_server.demo.ask import main

main()
