"""Let a version of a registered model take over only where MLflow's own validation and the policy both say so.

python promote.py MODEL VERSION old.csv new.csv --policy compat.toml [--alias champion]

MLflow's `validate_evaluation_results` asks that the update be at least as accurate as the model in use. Which instances
are wrong it cannot see, nor that all of them are of one class and were taken at night: the policy does.
"""

import argparse
import sys

import mlflow
from mlflow.models import EvaluationResult, MetricThreshold
from mlflow.models.evaluation.validation import ModelValidationFailedException

from bc_core import assert_compatible


def validate_accuracy(report):
    """MLflow's validation: raises where the update is less accurate."""
    scores = {line.name: line.value for line in report.scores}
    old, new = (EvaluationResult({"accuracy_score": scores[f"accuracy_{model}"]}, {}) for model in ("h1", "h2"))
    threshold = MetricThreshold(min_relative_change=0.0, greater_is_better=True)
    mlflow.validate_evaluation_results({"accuracy_score": threshold}, candidate_result=new, baseline_result=old)


def promote(model, version, old, new, policy, alias="champion", client=None):
    """Judge the update, say of the version what came of it, and move the alias where it passed.

    Returns:
        Whether it moved.
    """
    client = client or mlflow.MlflowClient()
    try:
        validate_accuracy(assert_compatible(old, new, policy=policy))
    except (AssertionError, ModelValidationFailedException) as refused:
        client.set_model_version_tag(model, version, "compatible", "no")
        client.update_model_version(model, version, description=str(refused))
        print(refused)
        return False
    client.set_model_version_tag(model, version, "compatible", "yes")
    client.set_registered_model_alias(model, alias, version)
    print(f"{model} {version} is {alias} now")
    return True


def main(arguments=None):
    """Read the command line; 0 where the alias moved, else 1."""
    parser = argparse.ArgumentParser()
    for name in ("model", "version", "old", "new"):
        parser.add_argument(name)
    parser.add_argument("--policy", default="compat.toml")
    parser.add_argument("--alias", default="champion")
    options = parser.parse_args(arguments)
    moved = promote(options.model, options.version, options.old, options.new, options.policy, options.alias)
    return 0 if moved else 1


if __name__ == "__main__":
    sys.exit(main())
