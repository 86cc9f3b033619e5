"""The explainer's process: protocol, predictor client, engine, jobs, live sampling, records."""
