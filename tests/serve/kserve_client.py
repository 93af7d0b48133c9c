"""KServe's SDK as a client: `kserve_client.py ADDRESS` prints what it is answered.

In a process of its own: its protobuf classes have the names of tritonclient's.
"""

import asyncio
import json
import sys

from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

from images import pixels


async def ask(address, forms):
    client = InferenceRESTClient(RESTConfig(protocol="v2", verbose=False))
    base = f"http://{address}"
    answers = []
    for binary in forms:
        tensor = InferInput("pixels", [1, 32, 32, 3], "UINT8")
        tensor.set_data_from_numpy(pixels(), binary_data=binary)
        request = InferRequest("small", [tensor], request_id="7", parameters={"instance": "full"})
        answer = await client.infer(base, request, model_name="small")
        logits = next(output for output in answer.outputs if output.name == "logits")
        answers.append([float(value) for value in logits.as_numpy().ravel()])
    return answers


async def check(address):
    client = InferenceRESTClient(RESTConfig(protocol="v2", verbose=False))
    base = f"http://{address}"
    assert await client.is_server_live(base) and await client.is_server_ready(base)
    assert await client.is_model_ready(base, "small")


def main(address, form="both"):
    if form == "both":
        asyncio.run(check(address))
    forms = {"both": [True, False], "binary": [True], "json": [False]}[form]
    print(json.dumps(asyncio.run(ask(address, forms))))


if __name__ == "__main__":
    main(*sys.argv[1:])
