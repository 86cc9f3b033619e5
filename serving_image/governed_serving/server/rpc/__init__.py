"""The Open Inference Protocol V2 over gRPC, above the same data plane. Needs grpcio, which nothing else here does."""
