"""Checks `sdpoint serve` with the clients that its users have; see `run`."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
import yaml
from tritonclient.utils import InferenceServerException

from images import forms, pixels, png
from server import Recorder, Server

ROOT = pathlib.Path(__file__).parents[2]
MODEL = ROOT / "fixtures/models/v2.safetensors"
RECORDED = ROOT / "crates/sdpoint-serve/src/tests/recorded"
SPECIFICATION = ROOT / "crates/sdpoint-serve/proto/open-inference-protocol/open_inference_rest.yaml"


def check_triton(kind, address, expected):
    """tritonclient, over HTTP or gRPC; returns the logits of `full`."""
    client = kind.InferenceServerClient(address)
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("small")
    http = kind is triton_http
    extra = {} if http else {"as_json": True}
    assert client.get_server_metadata(**extra)["name"] == "sdpoint"
    metadata = client.get_model_metadata("small", **extra)
    assert [tensor["name"] for tensor in metadata["inputs"]] == ["images", "pixels", "encoded"]
    config = client.get_model_config("small", **extra)
    config = config if http else config["config"]
    assert int(config.get("max_batch_size", 0)) == 0
    for name, datatype, data in forms():
        for binary in [True, False] if http and datatype != "BYTES" else [True]:
            arguments = {"binary_data": binary} if http else {}
            tensor = kind.InferInput(name, data.shape, datatype)
            tensor.set_data_from_numpy(data, **arguments)
            outputs = [
                kind.InferRequestedOutput("logits", **arguments),
                kind.InferRequestedOutput("probabilities", class_count=3, **arguments),
            ]
            answer = client.infer(
                "small",
                [tensor],
                outputs=outputs,
                request_id="7",
                parameters={"instance": "full"},
            )
            logits = answer.as_numpy("logits")
            if expected is None:
                expected = logits
            numpy.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
            best = answer.as_numpy("probabilities").reshape(-1)
            best = best[0].decode() if isinstance(best[0], bytes) else best[0]
            assert int(best.split(":")[1]) == logits.argmax(), best
            response = answer.get_response()
            assert (response["id"] if http else response.id) == "7"
    for model, parameters, text in [
        ("cats", {}, "no model 'cats'"),
        ("small", {"budget": "1%"}, "cheapest"),
    ]:
        try:
            client.infer(model, [tensor], parameters=parameters)
            raise AssertionError("no error")
        except InferenceServerException as error:
            assert text in error.message(), error
    statistics = client.get_inference_statistics("small", **extra)["model_stats"][0]
    assert int(statistics["inference_count"]) > 0
    if http:
        for algorithm in ["gzip", "deflate"]:
            client.infer("small", [tensor], request_compression_algorithm=algorithm)
    asynchronous = client.async_infer("small", [tensor]) if http else None
    if asynchronous:
        assert asynchronous.get_result().as_numpy("logits").shape == (1, 10)
    client.close()
    return expected


def kserve(address, *form):
    """What KServe's SDK is answered."""
    script = pathlib.Path(__file__).with_name("kserve_client.py")
    command = [sys.executable, script, address, *form]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def check_kserve(rest, expected):
    for logits in kserve(rest):
        numpy.testing.assert_allclose([logits], expected, rtol=1e-5, atol=1e-5)


def check_curl(rest):
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        file.write(png())
        file.flush()
        for arguments in [["--data-binary", f"@{file.name}"], ["-F", f"image=@{file.name}"]]:
            command = ["curl", "-sS", "--fail-with-body", f"http://{rest}/predict?budget=80%25"]
            answer = json.loads(subprocess.run(command + arguments, check=True, capture_output=True).stdout)
            assert len(answer["images"][0]["top"]) == 5, answer


def check_schemathesis(rest):
    """Whatever the specification lets a client send, the server answers as it says."""
    # In its addresses the specification writes ${NAME} for {NAME}; and only addresses of the
    # model that is served get beyond the question whether there is such a model.
    specification = yaml.safe_load(SPECIFICATION.read_text().replace("${", "{"))
    name = {"in": "path", "name": "MODEL_NAME", "required": True, "schema": {"enum": ["small"]}}
    version = {**name, "name": "MODEL_VERSION", "schema": {"enum": ["1"]}}
    for path, item in specification["paths"].items():
        if "{" in path:
            item["parameters"] = [name, version]
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "specification.yaml")
        file.write_text(yaml.safe_dump(specification))
        command = [
            pathlib.Path(sys.executable).with_name("schemathesis"),
            "run",
            file,
            "--url",
            f"http://{rest}",
            "--checks",
            "not_a_server_error,response_schema_conformance,content_type_conformance",
            "--max-examples",
            "100",
        ]
        # Its caches are written to the current folder.
        subprocess.run(command, check=True, cwd=folder)


def check_perf_analyzer(program, server):
    """perf_analyzer, over HTTP and gRPC."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"data": [{"pixels": {"content": pixels().ravel().tolist(), "shape": [1, 32, 32, 3]}}]}, file)
        file.flush()
        for protocol, address in [("http", server.rest), ("grpc", server.grpc)]:
            command = [program, "-m", "small", "-u", address, "-i", protocol]
            command += ["--input-data", file.name]
            command += ["--shape", "encoded:1", "--shape", "images:1,3,32,32"]
            # Whether it works, not how fast it is on a machine that may be busy.
            command += ["--measurement-interval", "1000", "--stability-percentage", "999"]
            subprocess.run(command, check=True)


def record(server):
    """Keeps what each client sends, for the tests that need no Python."""
    RECORDED.mkdir(exist_ok=True)
    for kind, address, name in [(triton_http, server.rest, "http"), (triton_grpc, server.grpc, "grpc")]:
        for binary in [True, False] if kind is triton_http else [True]:
            recorder = Recorder(address)
            client = kind.InferenceServerClient(recorder.address)
            arguments = {"binary_data": binary} if kind is triton_http else {}
            tensor = kind.InferInput("pixels", [1, 32, 32, 3], "UINT8")
            tensor.set_data_from_numpy(pixels(), **arguments)
            outputs = [kind.InferRequestedOutput("logits", **arguments)]
            client.infer("small", [tensor], outputs=outputs, request_id="7", parameters={"instance": "full"})
            form = ("-binary" if binary else "-json") if kind is triton_http else ""
            (RECORDED / f"tritonclient-{name}{form}.bin").write_bytes(recorder.sent)
            client.close()
    for form in ["binary", "json"]:
        recorder = Recorder(server.rest)
        kserve(recorder.address, form)
        (RECORDED / f"kserve-{form}.bin").write_bytes(recorder.sent)


def check_manifests():
    """The page's manifests, in a process of its own as KServe's client is."""
    script = pathlib.Path(__file__).with_name("manifests.py")
    subprocess.run([sys.executable, script], check=True)


def main(command, *parts):
    with Server(command, f"small={MODEL}", "--objective", "10s", "--admin") as server:
        if parts == ("record",):
            record(server)
            return
        expected = check_triton(triton_http, server.rest, None)
        check_triton(triton_grpc, server.grpc, expected)
        check_kserve(server.rest, expected)
        check_curl(server.rest)
        if program := os.environ.get("PERF_ANALYZER"):
            check_perf_analyzer(program, server)
        check_schemathesis(server.rest)
    check_manifests()
    print("all clients agree")


if __name__ == "__main__":
    main(*sys.argv[1:])
