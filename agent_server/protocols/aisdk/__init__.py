"""The AI SDK: UI message streams of Vercel's `ai`, over HTTP and over a WebSocket."""
