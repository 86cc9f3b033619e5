"""What GitOps tools read while the operator hasn't looked yet."""

import signal

from operator_bed import OperatorUnderTest, condition, make_trained, trained

from support.cluster_access import Cluster
from support.gitops import await_reading, reading
from support.waiting import eventually


def test_a_model_in_the_making_is_in_progress_and_a_ready_one_current(
    namespace: Cluster, operator: OperatorUnderTest
) -> None:
    operator.process.send_signal(signal.SIGSTOP)
    try:
        namespace.apply(trained())
        found = namespace.get("gmodel", "rich")
        assert found["status"]["observedGeneration"] == -1
        assert reading(namespace, "rich") == ("InProgress", "Progressing")
    finally:
        operator.process.send_signal(signal.SIGCONT)
    eventually(lambda: condition(namespace, "rich", "Reconciling"), lambda c: c[0] == "True", within=90)
    assert reading(namespace, "rich") == ("InProgress", "Progressing")
    make_trained(namespace)
    assert reading(namespace, "rich") == ("Current", "Healthy")
    kinds = {c["type"] for c in namespace.get("gmodel", "rich")["status"]["conditions"]}
    assert not {"Reconciling", "Stalled"} & kinds, "present only while True"

    operator.process.send_signal(signal.SIGSTOP)
    try:
        changed = trained()
        changed["spec"]["predictor"]["timeout"] = 61
        namespace.apply(changed)
        assert reading(namespace, "rich") == ("InProgress", "Progressing"), "what it says is of an earlier generation"
    finally:
        operator.process.send_signal(signal.SIGCONT)
    await_reading(namespace, "rich", "Current", "Healthy")
    namespace.kubectl("patch", "gmodel", "rich", "--type=merge", "-p", '{"spec": {"suspend": true}}')
    await_reading(namespace, "rich", "InProgress", "Suspended")
