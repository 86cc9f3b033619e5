"""All that runs inside a governed model's pods and Jobs: a room per role."""
