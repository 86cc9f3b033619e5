"""Transports' formats to and from InferRequest and InferResponse: V2 JSON, V2 binary tensors, KServe V1."""
