"""Measures evascore beside LitServe and FastAPI: CPU per request, latency, throughput, memory."""
