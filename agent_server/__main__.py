"""`python -m agent_server`: the command line."""

from agent_server.cli import main

if __name__ == "__main__":
    main()
