"""Traces of runs in MLflow, made and exported by a process of their own.

The server writes down facts: the request, the run's events without their deltas, and when which part of the graph
ran on what. It does not import MLflow, opens no connection and waits for nobody. The exporter, a child process of
low priority, makes MLflow's own spans of the facts and brings them to the tracking server. Between the two is a
bounded queue; what does not fit is dropped and counted.

    server: SpanFold, EventLog -> TraceRecord -> Exporter ==pipe==> exporter: TraceWriter -> MLflow
"""
