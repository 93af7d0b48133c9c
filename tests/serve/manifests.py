"""Checks the manifests of docs/serving.md against Kubernetes' schemas and KServe's models."""

import pathlib
import re

import kubernetes_validate
import yaml
from kserve import V1beta1InferenceServiceSpec, V1beta1PredictorSpec

PAGE = pathlib.Path(__file__).parents[2] / "docs/serving.md"


def manifests():
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return {manifest["kind"]: manifest for manifest in map(yaml.safe_load, blocks)}


def check_keys(part, model):
    """Every key is one that KServe's own model of it has."""
    unknown = set(part) - set(model.attribute_map.values())
    assert not unknown, unknown


def main():
    found = manifests()
    version = kubernetes_validate.latest_version()
    kubernetes_validate.validate(found["Deployment"], version, strict=True)
    service = found["InferenceService"]
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"
    check_keys(service["spec"], V1beta1InferenceServiceSpec)
    predictor = service["spec"]["predictor"]
    check_keys(predictor, V1beta1PredictorSpec)
    # What a predictor has of containers is what a pod has.
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": service["metadata"]}
    pod["spec"] = {"containers": predictor["containers"]}
    kubernetes_validate.validate(pod, version, strict=True)


if __name__ == "__main__":
    main()
