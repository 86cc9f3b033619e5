"""`governed infer`: asks a served model for one answer."""

from governed_api.runtime import PORT_HTTP
from governed_operator.cli.api_key import ApiKeyFile, api_key_headers
from governed_operator.cli.fail import fail
from governed_operator.cli.in_cluster import Context, Namespace, in_cluster, reached
from governed_operator.cli.model_options import AsJson, Instance, Name, Url, features, print_json


def command(
    name: Name,
    instance: Instance,
    url: Url = None,
    as_json: AsJson = False,
    *,
    api_key_file: ApiKeyFile = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Ask a model for one answer: its outputs, and the request's id in the ledger."""
    from governed_operator.local.client import ModelClient
    from governed_operator.local.explanation_view import answer_view
    from governed_operator.local.json_client import ClientError
    from governed_operator.local.plain_console import plain_console

    row, key = features(instance), api_key_headers(api_key_file)
    try:
        with (
            reached(url, PORT_HTTP, name, in_cluster(name, namespace, context)) as at,
            ModelClient(at, name, headers=key) as client,
        ):
            answer, metadata = client.infer([row]), client.metadata()
    except ClientError as error:
        fail(str(error))
    if as_json:
        print_json(answer)
        return
    plain_console().print(answer_view(answer, metadata))
