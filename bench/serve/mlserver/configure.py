"""Writes MLServer's settings: configure.py FOLDER NAME=MODEL.onnx…"""

import json
import pathlib
import sys

folder = pathlib.Path(sys.argv[1])
server = {"host": "127.0.0.1", "parallel_workers": 0, "metrics_endpoint": None, "debug": False}
folder.mkdir(parents=True, exist_ok=True)
(folder / "settings.json").write_text(json.dumps(server))
for argument in sys.argv[2:]:
    name, file = argument.split("=", 1)
    settings = {
        "name": name,
        "implementation": "classifier.Classifier",
        "max_batch_size": 32,
        # Long enough to fill batches under load, short against the objectives.
        "max_batch_time": 0.001,
        "parameters": {"uri": str(pathlib.Path(file).resolve())},
    }
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "model-settings.json").write_text(json.dumps(settings))
