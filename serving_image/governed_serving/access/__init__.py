"""Who calls: one check of a credential for every port and protocol."""
