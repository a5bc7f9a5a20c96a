"""``python -m SegmentAnythingMedLib.benchmark``: measure accuracy, cost, latency, speed and the main thread."""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from SegmentAnythingMedLib.benchmark.datasets import data_folder, load_structures
from SegmentAnythingMedLib.benchmark.machine import load_average, matmul_gflops, processor
from SegmentAnythingMedLib.benchmark.report import Line
from SegmentAnythingMedLib.errors import SegmentAnythingMedError


def main(argv: list[str] | None = None) -> int:
    """Run what the command line asks for; 0 if every line holds, 1 if one fails, else the error's exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    options = _parser().parse_args(argv)
    options.model = options.model or ("embedded" if options.run == "embedded" else "classic")
    lines: list[Line] = []
    for run in _IN_ALL if options.run == "all" else [options.run]:
        try:
            lines += _RUNS[run](options)
        except SegmentAnythingMedError as error:
            if options.run != "all":
                sys.stderr.write(f"{error}\n")
                return error.exit_code
            lines.append(Line(f"{run} can be measured", False, str(error)))
    for line in lines:
        print(line)
    return 0 if all(line.holds for line in lines) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m SegmentAnythingMedLib.benchmark", description=__doc__)
    parser.add_argument("run", choices=[*_RUNS, "all"])
    parser.add_argument("--data", help="folder of the development data (default: SEGMENT_ANYTHING_MED_DATA)")
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument("--model", help="default: classic (embedded: embedded)")
    parser.add_argument("--weights", type=Path, help="embedded: with its card beside; speed-dice: to go on training")
    parser.add_argument("--datasets", nargs="*", default=[], help="only these datasets")
    parser.add_argument("--limit", type=int, help="only the first N structures of each dataset")
    parser.add_argument("--cases", nargs="*", default=[], help="only these (mrml: titles, families: models)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (accuracy, embedded)")
    parser.add_argument("--fresh", action="store_true", help="forget the rows of an earlier run (accuracy, embedded)")
    parser.add_argument("--networks", nargs="+", default=["tiny", "edgetam"], help="what is compared (speed)")
    parser.add_argument("--side", type=int, default=512, help="pixels of the network's input (speed)")
    parser.add_argument("--slices", type=int, default=16, help="of a propagation, 10 or more (speed)")
    parser.add_argument("--rounds", type=int, default=3, help="by turns (speed)")
    parser.add_argument("--threads", type=int, default=1, help="of every runtime (speed)")
    parser.add_argument(
        "--backends",
        nargs="+",
        default=["torch", "openvino", "openvino merged"],
        help="ways to run our networks (speed)",
    )
    parser.add_argument("--precision", default="auto", help="fp32, bf16 or auto (speed-session)")
    parser.add_argument("--minutes", type=float, default=12, help="of training (speed-dice)")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], help="of everyone (speed)")
    parser.add_argument("--regenerate", action="store_true", help="write the list anew (structures)")
    return parser


def _accuracy(options: argparse.Namespace) -> list[Line]:
    from SegmentAnythingMedLib.benchmark import accuracy, picture, report

    data, started = data_folder(options.data), time.perf_counter()
    facts = {"model": options.model, "command": _command("accuracy", options), **_facts()}
    facts |= accuracy.run_header(options.model)
    rows = accuracy.run_accuracy(
        _chosen(options), data, options.output, options.model, jobs=options.jobs, fresh=options.fresh
    )
    minutes = f"{(time.perf_counter() - started) / 60:.1f} min"
    facts |= {"structures": len(rows), "run time": minutes}
    name = f"accuracy-{options.model}"
    _write(options.output, name, report.summary(rows, facts), report.markdown(rows, facts) + f"\n![Dice]({name}.png)\n")
    if any(row.get("scores") for row in report.headline_rows(rows)):
        picture.draw_accuracy(rows, options.output / f"{name}.png", f"Accuracy of {options.model}, {facts['date']}")
    return report.acceptance(rows)


def _invariance(options: argparse.Namespace) -> list[Line]:
    from SegmentAnythingMedLib.benchmark import invariance
    from SegmentAnythingMedLib.models.registry import ModelRegistry

    model = ModelRegistry().load(options.model)
    found = invariance.run_invariance(model, load_structures(), data_folder(options.data))
    facts = {"model": options.model, "command": _command("invariance", options), **_facts()}
    result = {**facts, "comparisons": [asdict(c) for c in found]}
    _write(options.output, f"invariance-{options.model}", result, invariance.markdown(found, facts))
    return invariance.acceptance(found)


def _cost(options: argparse.Namespace) -> list[Line]:
    from SegmentAnythingMedLib.benchmark import cost

    found = cost.run_cost(load_structures(), data_folder(options.data))
    facts = {"command": _command("cost", options), **_facts()}
    _write(options.output, "cost", {**facts, "costs": cost.as_json(found)}, cost.markdown(found, facts))
    return cost.acceptance(found)


def _latency(options: argparse.Namespace) -> list[Line]:
    from SegmentAnythingMedLib.benchmark import latency

    figures = latency.run_latency(options.model)
    facts = {"model": options.model, "command": _command("latency", options), **_facts()}
    _write(options.output, "latency", {**facts, "figures": figures}, latency.markdown(figures, facts))
    return latency.acceptance(figures)


def _mrml(options: argparse.Namespace) -> list[Line]:
    from SegmentAnythingMedLib.benchmark import mrml

    result = mrml.run_mrml(options.model, only=options.cases)
    facts = {"model": options.model, "command": _command("mrml", options), **_facts()}
    _write(options.output, "mrml", {**facts, **result}, mrml.markdown(result, facts))
    return mrml.acceptance(result)


def _embedded(options: argparse.Namespace) -> list[Line]:
    from SegmentAnythingMedLib.benchmark import embedded_run

    if options.weights is not None:
        embedded_run.use_weights(options.model, options.weights)
    facts = {"command": _command("embedded", options), **_facts()}
    data, jobs, fresh = data_folder(options.data), options.jobs, options.fresh
    lines, text = embedded_run.run_embedded(_chosen(options), data, options.output, options.model, facts, jobs, fresh)
    print(text)
    return lines


def _speed(options: argparse.Namespace) -> list[Line]:
    from SegmentAnythingMedLib.benchmark import speed, speed_picture
    from SegmentAnythingMedLib.benchmark.speed_contenders import Task

    how = options.rounds, options.threads, options.backends, options.precisions
    runs = [speed.run_speed(Task(model, options.side, options.slices), *how) for model in options.networks]
    facts = {"command": _command("speed", options), **_facts()}
    speed_picture.draw_speed(runs, options.output / "speed.png", f"Propagation, {facts['processor']}, {facts['date']}")
    _write(options.output, "speed", {**facts, "runs": [run.as_json() for run in runs]}, speed.markdown(runs, facts))
    return [line for run in runs for line in speed.acceptance(run)]


def _speed_session(options: argparse.Namespace) -> list[Line]:
    from SegmentAnythingMedLib.benchmark import speed_session

    lines = []
    for model in options.networks:
        found = speed_session.run_session(model, options.side, options.precision, options.output / "speed-weights")
        facts = {"command": _command("speed-session", options), **_facts()}
        name = f"speed-session-{model}"
        _write(options.output, name, {**facts, **found}, speed_session.markdown(found, facts))
        lines += speed_session.acceptance(found)
    return lines


def _speed_dice(options: argparse.Namespace) -> list[Line]:
    import torch
    from safetensors.torch import load_file, save_file

    from SegmentAnythingMedLib.benchmark import small_sam2, speed_dice

    torch.set_num_threads(options.threads)
    patient, network = small_sam2.Patient.made(), small_sam2.new_network()
    if options.weights is not None:  # of an earlier run, to go on from
        network.load_state_dict(load_file(options.weights))
    small_sam2.train(network, patient, options.minutes, tell=lambda text: print(text, flush=True))
    options.output.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), options.output / "speed-dice.safetensors")
    found = speed_dice.run_dice(network, patient)
    facts = {"command": _command("speed-dice", options), "training": f"{options.minutes:g} min", **_facts()}
    _write(options.output, "speed-dice", {**facts, "ways": found}, speed_dice.markdown(found, facts))
    return speed_dice.acceptance(found)


def _families(options: argparse.Namespace) -> list[Line]:
    from SegmentAnythingMedLib.benchmark import families

    found = families.run_families(options.cases)
    facts = {"command": "`python -m SegmentAnythingMedLib.benchmark families`", **_facts()}
    _write(options.output, "families", {**facts, "costs": families.as_json(found)}, families.markdown(found, facts))
    return []


def _structures(options: argparse.Namespace) -> list[Line]:
    from SegmentAnythingMedLib.benchmark import catalog

    data = data_folder(options.data)
    if options.regenerate:
        catalog.regenerate(data)
    rows = load_structures(datasets=options.datasets)
    problems = catalog.validate(rows, data)
    for problem in problems:
        print(problem)
    return [Line("every structure can be opened and is what the list says", not problems, f"{len(rows)} structures")]


_RUNS: dict[str, Callable[[argparse.Namespace], list[Line]]] = {
    "accuracy": _accuracy,
    "invariance": _invariance,
    "cost": _cost,
    "latency": _latency,
    "mrml": _mrml,
    "embedded": _embedded,
    "speed": _speed,
    "speed-session": _speed_session,
    "speed-dice": _speed_dice,
    "families": _families,
    "structures": _structures,
}
_IN_ALL = ("accuracy", "invariance", "cost", "latency", "mrml")


def _chosen(options: argparse.Namespace) -> list:
    structures = load_structures(datasets=options.datasets)
    if options.limit is None:
        return structures
    taken: dict[str, int] = {}
    chosen = []
    for structure in structures:
        taken[structure.dataset] = taken.get(structure.dataset, 0) + 1
        if taken[structure.dataset] <= options.limit:
            chosen.append(structure)
    return chosen


def _command(run: str, options: argparse.Namespace) -> str:
    """What was asked for, without paths of this machine."""
    speed = run.startswith("speed")
    needs_data = run not in ("latency", "mrml") and not speed
    parts = [f"python -m SegmentAnythingMedLib.benchmark {run}", "--data DATA" * needs_data]
    parts += [f"--model {options.model}"] * (run != "cost" and not speed)
    parts += ["--weights FILE"] if run == "embedded" and options.weights else []
    if run in ("accuracy", "embedded"):
        parts += [f"--jobs {options.jobs}", *([f"--datasets {' '.join(options.datasets)}"] if options.datasets else [])]
        parts += [f"--limit {options.limit}"] if options.limit else []
    if run == "speed":
        parts += [f"--networks {' '.join(options.networks)} --backends {' '.join(options.backends)}"]
        parts += [f"--precisions {' '.join(options.precisions)}"]
        parts += [f"--{name} {getattr(options, name)}" for name in ("side", "slices", "rounds", "threads")]
    if run == "speed-session":
        parts += [f"--networks {' '.join(options.networks)} --side {options.side} --precision {options.precision}"]
    if run == "speed-dice":
        parts += ["--weights FILE"] * (options.weights is not None)
        parts += [f"--minutes {options.minutes:g} --threads {options.threads}"]
    return "`" + " ".join(part for part in parts if part) + "`"


def _facts() -> dict[str, Any]:
    return {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "matmul peak": f"{matmul_gflops():.0f} GFLOP/s fp32 (load average {load_average():.1f})",
    }


def _write(folder: Path, name: str, result: dict[str, Any], text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1, default=str) + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    sys.exit(main())
