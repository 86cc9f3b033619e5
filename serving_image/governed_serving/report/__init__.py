"""Client of the GovernanceReport: a pod puts its own part."""
