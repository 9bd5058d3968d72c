"""The API: what is answered, to whom, and what is refused; clients that vanish or stall; the end."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest

from tools.service import SOURCES, Service

pytest.importorskip("fastapi", reason="pip install .[serve]")


def raw(service, data=b"", receive_buffer=None):
    """A connection of one's own, with something sent already."""
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(30)
    sock.connect(("127.0.0.1", service.port))
    sock.sendall(data)
    return sock


def posted(fields, path="/v1/generate", length=None):
    body = json.dumps(fields).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


def refused(answer, status, message, field=None):
    code, document = answer
    error = document["error"]
    assert (code, error["code"], error["param"]) == (status, status, field)
    assert message in error["message"]
    assert error["type"] == ("invalid_request_error" if status < 500 else "server_error")


# Answers


def test_a_text_whole_and_streamed(service):
    fields = {"prefix": "over the hills", "length": 60, "seed": 3, "samples": 2, "temperature": 0.8}
    status, whole = service.post("/v1/generate", fields)
    assert status == 200 and whole["seed"] == 3 and whole["reasons"] == ["length", "length"]
    first, *lines, last = [json.loads(line) for line in service.stream(**fields)]
    assert first == {"model": "ducks", "seed": 3} and last == {"done": True, "symbols": 120}
    texts = ["over the hills" + "".join(line["text"] for line in lines if line["index"] == i) for i in range(2)]
    assert texts == whole["texts"] and texts[0] != texts[1]
    assert service.post("/v1/generate", fields)[1] == whole


def test_a_seed_of_its_own_is_named_and_gives_the_text_again(service):
    first, second = (service.post("/v1/generate", {"length": 40})[1] for _ in range(2))
    assert first["texts"] != second["texts"]
    again = service.post("/v1/generate", {"length": 40, "seed": first["seed"]})[1]
    assert again == first


def test_details_and_states(service):
    fields = {"length": 5, "seed": 1, "details": True, "states": True}
    _, *lines, _ = [json.loads(line) for line in service.stream(**fields)]
    assert len(lines) == 5 and lines[-1]["reason"] == "length"
    for line in lines:
        shares = [share for _, share in line["likeliest"]]
        assert len(shares) == 5 and shares == sorted(shares, reverse=True) and 0 < line["probability"] <= shares[0]
        assert [len(units) for units in line["state"]] == [24, 24] and max(map(max, line["state"])) <= 100
    assert service.post("/v1/generate", fields)[1]["symbols"] == [lines]


def test_a_score(service):
    status, score = service.post("/v1/score", {"text": "the hills? far"})
    assert status == 200 and "".join(score["symbols"]) == "the hills? far" and score["unknown"] == 1
    assert score["losses"][0] is None and len(score["losses"]) == 14
    assert abs(sum(score["losses"][1:]) / 13 - score["loss"]) < 1e-3
    losses = [place["loss"] for place in score["places"]]
    assert losses == sorted(losses, reverse=True) and losses[0] == max(score["losses"][1:])


def test_both_models_are_served(service):
    listed = service.get("/v1/models")[1]["data"]
    assert [each["id"] for each in listed] == ["ducks", "geese"] and all(each["ready"] for each in listed)
    texts = [service.post("/v1/generate", {"length": 40, "seed": 1, "model": name})[1] for name in ("ducks", "geese")]
    assert texts[0]["texts"] != texts[1]["texts"] and texts[1]["model"] == "geese"


def test_completions_have_the_form_of_other_servers(service):
    fields = {"model": "ducks", "prompt": ["over ", "the "], "max_tokens": 30, "n": 2, "seed": 5, "logprobs": 2}
    status, whole = service.post("/v1/completions", {**fields, "echo": True})
    assert status == 200 and whole["object"] == "text_completion"
    assert whole["usage"] == {"prompt_tokens": 9, "completion_tokens": 120, "total_tokens": 129}
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2, 3]
    for prompt, choices in (("over ", whole["choices"][:2]), ("the ", whole["choices"][2:])):
        texts = service.post("/v1/generate", {"prefix": prompt, "length": 30, "samples": 2, "seed": 5})[1]["texts"]
        assert [choice["text"] for choice in choices] == texts
        for choice in choices:
            logprobs = choice["logprobs"]
            assert prompt + "".join(logprobs["tokens"]) == choice["text"] and choice["finish_reason"] == "length"
            assert all(len(top) == 2 for top in logprobs["top_logprobs"]) and len(logprobs["token_logprobs"]) == 30
            assert all(choice["text"][at] == token for at, token in zip(logprobs["text_offset"], logprobs["tokens"]))


def test_the_symbols_of_a_prompt_are_counted_as_those_of_a_text():
    from deeprnn.serve.completions import Choices
    from deeprnn.serve.fields import Completion

    for unit, expected in (("word", 3), ("char", 8)):  # a newline is a word
        model = SimpleNamespace(name="ducks", unit=unit)
        answer = Choices(Completion(prompt="far\n and"), model, ["far\n and"]).whole([])
        assert answer["usage"]["prompt_tokens"] == expected


def test_completions_end_before_a_stop_text(service):
    text = service.post("/v1/generate", {"prefix": "a", "length": 200, "seed": 1})[1]["texts"][0]
    stop = text[40:43]
    expected = text[1 : text.index(stop, 1)]
    fields = {"prompt": "a", "max_tokens": 200, "seed": 1, "stop": [stop]}
    (choice,) = service.post("/v1/completions", fields)[1]["choices"]
    assert choice["text"] == expected and choice["finish_reason"] == "stop"
    lines = [line for line in service.stream("/v1/completions", **fields) if line != b"\n"]
    assert lines[-1] == b"data: [DONE]\n"
    events = [json.loads(line.partition(b"data: ")[2])["choices"][0] for line in lines[:-1]]
    assert "".join(event["text"] for event in events) == expected and events[-1]["finish_reason"] == "stop"


def test_figures_and_the_description(service):
    before = service.figure("symbols_total")
    service.post("/v1/generate", {"length": 25, "samples": 2})
    assert service.figure("symbols_total") - before == 50 and service.figure("ready") == 2
    description = service.get("/openapi.json")[1]
    assert set(description["paths"]) == {
        *("/v1/generate", "/v1/score", "/v1/completions", "/v1/models", "/health", "/ready", "/metrics")
    }
    schema = description["components"]["schemas"]["Generate"]["properties"]
    assert schema["top_p"]["exclusiveMinimum"] == 0 and all("description" in field for field in schema.values())


def test_the_page_allows_nothing_from_elsewhere(service):
    for path, kind in (("/", "text/html"), ("/style.css", "text/css"), ("/page.js", "javascript")):
        status, headers, content = service.request("GET", path)
        headers = {name.lower(): value for name, value in headers.items()}
        assert status == 200 and kind in headers["content-type"] and b"http://" not in content
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert headers["x-content-type-options"] == "nosniff" and "access-control-allow-origin" not in headers


# Refusals


@pytest.mark.parametrize(
    "body, status, message, field",
    [
        ({"length": "5"}, 422, "length must be a valid integer, got '5'", "length"),
        ({"length": True}, 422, "length must be a valid integer, got True", "length"),
        ({"length": 2.5}, 422, "length must be a valid integer", "length"),
        ({"length": 0}, 422, "length must be greater than or equal to 1, got 0", "length"),
        ({"length": 10**9}, 422, "length must be at most 50,000, got 1,000,000,000", "length"),
        ('{"length": 1e999}', 422, "length must be a valid integer, got inf", "length"),
        ('{"temperature": NaN}', 422, "temperature must be a finite number, got nan", "temperature"),
        ({"temperature": -1}, 422, "temperature must be greater than or equal to 0, got -1", "temperature"),
        ({"top_p": 0}, 422, "top_p must be greater than 0, got 0", "top_p"),
        ({"samples": 5}, 422, "samples must be at most 4, got 5", "samples"),
        ({"seed": -1}, 422, "seed must be greater than or equal to 0, got -1", "seed"),
        ({"lenght": 5}, 422, "lenght is not a field of this request", "lenght"),
        ({"prefix": "Über"}, 422, "prefix: not in the vocabulary of 29 symbols: 'Ü' (U+00DC)", "prefix"),
        ('{"prefix": "\\ud800"}', 422, "prefix: not in the vocabulary", "prefix"),
        ({"prefix": "a" * 20_001}, 422, "prefix must have at most 20,000 characters, got 20,001", "prefix"),
        ({"stop": ""}, 422, "stop must have at least one character, got ''", "stop"),
        ({"stop": list("abcde")}, 422, "stop must have at most 4 texts, got 5", "stop"),
        ({"model": "swans"}, 404, "model must be one of 'ducks', 'geese', got 'swans'", "model"),
        ([], 422, "the body must be a JSON object", None),
        ("", 422, "", None),
        ("{", 400, "the body is not JSON: ", None),
        ("[" * 100_000, 400, "", None),
        ('{"seed": ' + "9" * 5000 + "}", 400, "", None),
        (b'{"prefix": "\xff"}', 400, "", None),
        ({"prefix": "a" * 1_000_001}, 413, "the body must have at most 1,000,000 bytes", None),
    ],
)
def test_wrong_requests(service, body, status, message, field):
    refused(service.post("/v1/generate", body), status, message, field)


@pytest.mark.parametrize(
    "method, path, headers, status, message, field",
    [
        ("GET", "/nothing", {}, 404, "Not Found", None),
        ("GET", "/v1/score", {}, 405, "Method Not Allowed", None),
        ("GET", "/health", {"Host": "evil.example"}, 403, "Host must be one of 127.0.0.1, ::1, localhost", "Host"),
        ("GET", "/v1/models", {"Origin": "http://evil.example"}, 403, "may not use this service", "Origin"),
        (
            "POST",
            "/v1/score",
            {"Content-Type": "text/plain"},
            415,
            "Content-Type must be application/json",
            "Content-Type",
        ),
    ],
)
def test_requests_of_the_wrong_kind(service, method, path, headers, status, message, field):
    code, _, content = service.request(method, path, b"{}" if method == "POST" else None, **headers)
    refused((code, json.loads(content)), status, message, field)


def test_what_is_no_http(service):
    for data in (b"\x16\x03\x01\x02\x00" * 10, b"GET / HTTP/1.1\r\n" + b"A" * 100_000, b"GET /\r\n\r\n"):
        with raw(service, data) as sock:
            answer = sock.recv(10_000)
            assert answer.startswith(b"HTTP/1.1 400 ") and b'"code":400' in answer


# Clients that are no good


def test_a_client_that_vanishes_frees_its_slot(service):
    before = sum("POST /v1/generate" in line for line in service.log)
    for _ in range(3):
        with raw(service, posted({"length": 50_000, "stream": True})) as sock:
            assert sock.recv(100).startswith(b"HTTP/1.1 200 OK")
    with raw(service, posted({"length": 50_000})) as sock:  # this one waits for the whole
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
    assert service.idle()
    until = time.monotonic() + 10
    while sum("POST /v1/generate" in line for line in service.log) < before + 4:  # each of them has its line
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_client_that_vanishes_frees_the_slots_of_all_its_prompts(service):
    with raw(service, posted({"prompt": ["a", "b", "c"], "max_tokens": 50_000}, "/v1/completions")):
        until = time.monotonic() + 10
        while service.figure("running") < 3:
            assert time.monotonic() < until
    assert service.idle()


def test_a_client_that_stalls_is_dropped_and_harms_nobody(service):
    wanted = {"length": 50_000, "stream": True, "details": True, "states": True, "samples": 4}
    with raw(service, posted(wanted), receive_buffer=2048):
        begun = time.monotonic()
        while service.figure("running") == 0:
            assert time.monotonic() < begun + 10
        fields = {"prefix": "over", "length": 50, "seed": 2}
        assert service.post("/v1/generate", fields)[0] == 200
        assert service.idle(within=30)  # long before 50,000 symbols are written, see the log
    lines = [line for line in service.log if " symbols" in line]
    assert int(re.search(r"(\d+) symbols", lines[-1])[1]) < 100_000


def test_the_log_has_a_line_a_request_and_no_text(service):
    service.post("/v1/generate", {"prefix": "a secret", "length": 7})
    until = time.monotonic() + 10
    while not any(" 7 symbols" in line for line in service.log):
        assert time.monotonic() < until
        time.sleep(0.01)
    assert not any("secret" in line for line in service.log)


def test_the_log_has_the_error_of_whichever_job_failed(caplog):
    from deeprnn.serve.jobs import Job
    from deeprnn.serve.metrics import Metrics

    fine, bad = Job([1], 1, 0.0), Job([1], 1, 0.0)
    bad.end("the model has failed")
    scope = {"method": "POST", "path": "/v1/completions", "deeprnn.jobs": [(fine, "a"), (bad, "b")]}
    with caplog.at_level("INFO", "deeprnn.serve"):
        Metrics().answered(scope, 503, time.perf_counter(), True)
    assert caplog.messages[0].endswith("0 symbols (the model has failed)")


def test_sigterm_lets_what_runs_end_and_refuses_what_comes(folders):
    running = Service(folders[0], "--max-length", "1000000")
    lines = running.stream(length=300, seed=1)
    next(lines)
    with raw(running) as idle:  # kept open, to ask later
        running.process.terminate()
        last = json.loads([*lines][-1])
        assert last == {"done": True, "symbols": 300}
        assert idle.recv(10) == b""
    assert running.stop() == 0


def test_what_runs_for_longer_than_the_bound_is_ended_and_reported(folders):
    running = Service(folders[0], "--max-length", "1000000", "--grace", "0.2")
    lines = running.stream(length=1_000_000)
    next(lines)
    assert running.stop() == 0
    assert json.loads([*lines][-1])["error"]["message"] == "the service is stopping"


# The command


def test_a_service_whose_standard_output_nobody_reads(folders):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-W", "ignore", "-m", "deeprnn", "serve", str(folders[0]), "--port", str(port)]
    paths = [SOURCES, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=write, stderr=subprocess.DEVNULL)
    os.close(write)
    try:
        until, status = time.monotonic() + 120, 0
        while status != 200:
            assert process.poll() is None and time.monotonic() < until
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            with suppress(OSError, http.client.HTTPException):  # it does not listen yet, or has ended
                connection.request("GET", "/ready")
                status = connection.getresponse().status
            connection.close()
            time.sleep(0.02)
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_what_the_command_refuses(folders, tmp_path, capsys, service):
    from deeprnn.cli.main import main

    (tmp_path / "token").write_text("short\n")
    for arguments, message in (
        ([tmp_path / "none"], "none does not exist: give the folder of a run, an exported folder, or an .onnx file"),
        ([tmp_path], " has no checkpoint"),
        ([folders[0], "--port", "70000"], "--port must be at most 65535, got 70000"),
        ([folders[0], "--port", service.port], f"--port {service.port} is in use on 127.0.0.1: choose another"),
        (
            [folders[0], "--host", "0.0.0.0"],
            "--host 0.0.0.0 can be reached from other machines: add --allow-remote true",
        ),
        ([folders[0], "--host", "0.0.0.0", "--allow-remote"], "--allow-remote true needs --token-file FILE, so that"),
        ([folders[0], "--token-file", tmp_path / "token"], "must have a token of at least 16 letters and digits"),
        ([folders[0], "--slots", "0"], "--slots must be at least 1, got 0"),
        ([], "model"),
    ):
        assert main(["serve", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error


def test_without_the_extra(folders, monkeypatch, capsys):
    from deeprnn.cli.main import main

    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert main(["serve", str(folders[0])]) == 2
    assert capsys.readouterr().err == "deeprnn: error: fastapi is not installed: pip install 'deeprnn[serve]'\n"


def test_a_token_and_other_machines(folders, tmp_path):
    token = "0123456789abcdef"
    (tmp_path / "token").write_text(f"{token}\n")
    options = ["--host", "0.0.0.0", "--allow-remote", "--token-file", tmp_path / "token"]
    running = Service(folders[0], *options, "--hosts", "models.example", "--cors", "https://page.example")
    refused(running.get("/v1/models"), 401, "Authorization must be 'Bearer' and the service's token", "Authorization")
    refused(running.get("/v1/models", Authorization="Bearer x"), 401, "token", "Authorization")
    assert running.get("/v1/models", Authorization=f"Bearer {token}", Host="models.example:80")[0] == 200
    assert running.get("/health")[0] == running.request("GET", "/")[0] == 200
    asked = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
    status, headers, _ = running.request("OPTIONS", "/v1/generate", **asked)
    assert status == 204 and headers["access-control-allow-origin"] == "https://page.example"
    assert running.stop() == 0


def test_a_client_that_reads_slowly_but_reads_gets_all(service):
    fields = {"length": 15_000, "samples": 4, "seed": 1}
    expected = service.post("/v1/generate", fields)[1]["texts"]
    with raw(service, posted(fields), receive_buffer=4096) as sock:
        received = b""
        while b"\r\n\r\n" not in received or len(received) < whole_length(received):
            time.sleep(0.1)
            part = sock.recv(4096)
            assert part, f"cut off after {len(received)} bytes"
            received += part
    assert json.loads(received.partition(b"\r\n\r\n")[2])["texts"] == expected


def whole_length(received):
    head, _, _ = received.partition(b"\r\n\r\n")
    return len(head) + 4 + int(re.search(rb"(?i)content-length: (\d+)", head)[1])


def test_a_stop_text_has_a_limit(service):
    refused(
        service.post("/v1/generate", {"stop": "a" * 201}),
        422,
        "stop must have at most 200 characters, got 201",
        "stop",
    )


def test_methods_that_a_path_does_not_take(service):
    for method, path in (("POST", "/health"), ("DELETE", "/v1/models"), ("PUT", "/v1/generate")):
        connection = http.client.HTTPConnection("127.0.0.1", service.port)
        connection.request(method, path, headers={"Host": "localhost"})
        assert connection.getresponse().status == 405
        connection.close()
    for path in ("/", "/health"):
        connection = http.client.HTTPConnection("127.0.0.1", service.port)
        connection.request("HEAD", path, headers={"Host": "localhost"})
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"")
        connection.close()


def test_the_names_of_this_machine_are_known_where_all_addresses_are_served():
    from deeprnn.cli.serve import names_of_this_machine

    assert names_of_this_machine("127.0.0.1") == [] == names_of_this_machine("::1")
    assert socket.gethostname() in names_of_this_machine("0.0.0.0")


def test_a_text_that_repeats_itself_holds_nobody_up():
    import numpy as np

    from deeprnn.sampling import Sampler, repeat_lengths

    assert repeat_lengths([0] * 500, 2).tolist() == [500, 0]
    assert repeat_lengths([0] * 500, 2, most=74).tolist() == [74, 0]
    penalized = Sampler(repetition_penalty=0.1).probabilities(np.zeros(2), text=[0] * 500)
    assert penalized[0] / penalized[1] == pytest.approx(np.exp(-0.1 * 64))


def test_news_between_the_notice_and_the_look_are_not_missed():
    """The engine ends a job exactly between the two lines in which a reader looks at it."""
    import asyncio

    from deeprnn.serve.answers import news
    from deeprnn.serve.jobs import Job

    class Ending(Job):
        noticed = property(lambda self: False, lambda self, value: value or self.end())

    async def read():
        job = Ending([1], 1, 0.0)
        job.over, job.listener = False, asyncio.Event()
        job.listener.set()
        return [each async for each in news(job)]

    assert asyncio.run(asyncio.wait_for(read(), 5)) == []
