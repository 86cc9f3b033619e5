"""HTTP: the hot routes as raw ASGI, everything else FastAPI, one OpenAPI page over both."""
