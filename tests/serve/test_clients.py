"""Programs of others: a client library of text-generation servers, and one that attacks an OpenAPI description.

Skipped where they are not installed (`pip install openai schemathesis`); slow.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

pytest.importorskip("fastapi", reason="pip install .[serve]")
pytestmark = pytest.mark.slow


def test_a_client_library_of_other_servers(service):
    library = pytest.importorskip("openai", reason="pip install openai")
    client = library.OpenAI(base_url=f"http://127.0.0.1:{service.port}/v1", api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == ["ducks", "geese"]
    fields = {"model": "ducks", "prompt": "over ", "max_tokens": 40, "seed": 7, "temperature": 0.9}
    whole = client.completions.create(**fields, logprobs=2)
    assert whole.choices[0].finish_reason == "length" and whole.usage.total_tokens == 45
    assert len(whole.choices[0].logprobs.tokens) == 40
    stream = client.completions.create(**fields, stream=True, stream_options={"include_usage": True})
    events = list(stream)
    assert "".join(event.choices[0].text for event in events if event.choices) == whole.choices[0].text
    assert events[-1].usage.completion_tokens == 40
    with pytest.raises(library.UnprocessableEntityError, match="max_tokens must be at most 50,000") as refused:
        client.completions.create(**{**fields, "max_tokens": 10**6})
    assert refused.value.param == "max_tokens"
    client.close()


@pytest.mark.skipif(find_spec("schemathesis") is None, reason="pip install schemathesis")
def test_requests_made_from_the_description(service):
    """Whatever fits the description and whatever does not: no 5xx, and answers of the form that is described.

    A request that fits may still be refused, for symbols that a model does not know or what is beyond its limits.
    """
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{service.port}/openapi.json"),
            *("--checks", "not_a_server_error,status_code_conformance,content_type_conformance"),
            *("--checks", "response_schema_conformance,negative_data_rejection"),
            *(
                "--max-examples",
                "60",
                "--seed",
                "1",
                "--request-timeout",
                "60",
                "--phases",
                "examples,coverage,fuzzing",
            ),
        ],
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
