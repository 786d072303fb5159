"""Helm's own engine, for the tests of the chart: helm.py CHART COMMAND, with a JSON argument on the standard input.

render   [{"name", "namespace", "values"}, ...]: for each {"files": {template: text}} or {"error": text}
lint     {"values"}: the report
release  {"kubeconfig", "name", "namespace", "action": "install" | "upgrade" | "uninstall", "values"}
"""

import json
import pathlib
import shutil
import sys
import tempfile

import helm_python as helm


def render(chart, asked):
    answers = []
    for each in asked:
        try:
            chart.validate_schema(each["values"])
            answers.append({"files": chart.render(each["values"], name=each["name"], namespace=each["namespace"])})
        except helm.HelmError as error:
            answers.append({"error": str(error)})
    return answers


def release(folder, asked):
    # An API server before 1.25 does not take CRDs with validation rules; the test has made them already.
    chart = pathlib.Path(tempfile.mkdtemp()) / "adx-mon"
    shutil.copytree(folder, chart, ignore=shutil.ignore_patterns("crds"))
    try:
        return act(chart, asked)
    finally:
        shutil.rmtree(chart.parent)


def act(chart, asked):
    with helm.Config(kubeconfig_path=asked["kubeconfig"], namespace=asked["namespace"]) as config:
        if asked["action"] == "uninstall":
            return config.uninstall(asked["name"])
        action = getattr(config, asked["action"])
        return action(chart, asked["name"], asked["values"])


def main():
    folder, command = sys.argv[1:]
    asked = json.load(sys.stdin)
    with helm.Chart.load(folder) as chart:
        if command == "render":
            answer = render(chart, asked)
        elif command == "lint":
            answer = helm.lint(folder, asked["values"])
        else:
            answer = release(folder, asked)
    json.dump(answer, sys.stdout)


main()
