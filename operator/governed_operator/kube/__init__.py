"""The API server: connection, typed calls, kinds, projections, leader election."""
