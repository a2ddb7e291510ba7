"""`/ws`: any protocol over a WebSocket, chosen by its subprotocol; and `langchain.v2`, LangChain's own events."""
