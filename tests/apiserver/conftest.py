"""Tests of this level run against etcd and a real kube-apiserver; `support.fixtures` brings them up."""

from support.fixtures import api_bed, audit, namespace, pytest_runtest_makereport, swept, tell

__all__ = ["api_bed", "audit", "namespace", "pytest_runtest_makereport", "swept", "tell"]
