"""What a word of YAML means is kubectl's to say."""

import json
import subprocess

from support.kubectl_words import MEANT
from support.programs import program


def test_words_mean_to_kubectl_what_we_say_they_do() -> None:
    head = "apiVersion: v1\nkind: Word\nmetadata: {name: x}\nwords:\n"
    asked = head + "".join(f"- {word}\n" for word in MEANT)
    command = [str(program("kubectl")), "annotate", "--local", "--filename=-", "a=b", "--output=json"]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=120, check=True)
    found = dict(zip(MEANT, json.loads(done.stdout)["words"], strict=True))
    assert json.dumps(found) == json.dumps(dict(MEANT))
