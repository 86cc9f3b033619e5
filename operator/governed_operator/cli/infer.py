"""`governed infer`: asks a served model for one answer."""

from governed_api.runtime import PORT_HTTP, on_this_machine
from governed_operator.cli.fail import fail
from governed_operator.cli.in_cluster import Context, Namespace, in_cluster, reached
from governed_operator.cli.model_options import AsJson, Instance, Name, Url, features, print_json


def command(
    name: Name,
    instance: Instance,
    url: Url = on_this_machine(PORT_HTTP),
    as_json: AsJson = False,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Ask a model for one answer: its outputs, and the request's id in the ledger."""
    from governed_operator.local.client import ClientError, ModelClient
    from governed_operator.local.explanation_view import answer_view
    from governed_operator.local.plain_console import plain_console

    row = features(instance)
    try:
        with reached(url, PORT_HTTP, in_cluster(name, namespace, context)) as at, ModelClient(at, name) as client:
            answer, metadata = client.infer([row]), client.metadata()
    except ClientError as error:
        fail(str(error))
    if as_json:
        print_json(answer)
        return
    plain_console().print(answer_view(answer, metadata))
