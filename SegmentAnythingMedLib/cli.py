"""The command line: ``segment-anything-med`` or ``python -m SegmentAnythingMedLib``."""

from __future__ import annotations

import argparse
import json
import logging
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from SegmentAnythingMedLib import __version__
from SegmentAnythingMedLib.errors import ModelUnavailableError, OutputError, PromptError, SegmentAnythingMedError
from SegmentAnythingMedLib.sources.learn_options import add_learn, run_learn
from SegmentAnythingMedLib.sources.options import add_prompts, run_prompts

EXIT_DONE, EXIT_BAD_INPUT, EXIT_MODEL_UNAVAILABLE, EXIT_CANCELLED, EXIT_INTERRUPTED = 0, 2, 3, 4, 130
_BAR_WIDTH = 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0 done, 2 bad usage or input, 3 model unavailable, 4 cancelled with the part that was done written, 130
    interrupted before there was anything to write.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if not hasattr(options, "run"):
        parser.print_help()
        return EXIT_BAD_INPUT
    logging.basicConfig(level=logging.DEBUG if options.debug else logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        return options.run(options)
    except SegmentAnythingMedError as error:
        if options.debug:
            raise
        print(f"segment-anything-med: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nsegment-anything-med: Interrupted; nothing was written.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except MemoryError:
        if options.debug:
            raise
        print(
            "segment-anything-med: Out of memory: crop the volume, choose a smaller model or close other programs.",
            file=sys.stderr,
        )
        return EXIT_BAD_INPUT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="segment-anything-med", description=__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=__version__)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show tracebacks and debug messages")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_segment(commands, common)
    add_prompts(commands, common).set_defaults(run=_run_prompts)
    add_learn(commands, common).set_defaults(run=_run_learn)
    _add_models(commands, common)
    _add_web(commands, common)
    demo = commands.add_parser("demo", parents=[common], help="segment an organ of a made-up CT and show the result")
    demo.add_argument("--output", default="out/demo", help="folder for the files (default: %(default)s)")
    demo.add_argument("--json", action="store_true", help="print one JSON object; the app is not opened")
    demo.add_argument("--no-app", action="store_true", help="do not open the browser app afterwards")
    demo.set_defaults(run=_run_demo)
    return parser


def _add_segment(commands: Any, common: argparse.ArgumentParser) -> None:
    segment = commands.add_parser(
        "segment",
        parents=[common],
        help="outline a structure on one slice and carry it through the volume",
        description="Positions are voxel indices in SimpleITK's order (I J K); ranges and box corners are inclusive.",
    )
    add = segment.add_argument
    add("volume", help="NIfTI, NRRD, MHA, image or DICOM folder")
    add("--series", help="which series of a DICOM folder; without it they are listed")
    add("--plane", default="axial", help="axial, coronal, sagittal, I, J or K (default: %(default)s)")
    add("--slice", type=int, help="index of the box's slice along the plane's depth axis")
    add("--box", type=float, nargs=4, metavar=("I0", "J0", "I1", "J1"), help="corners, without the depth axis")
    add("--point", type=float, nargs=3, action="append", default=[], metavar=("I", "J", "K"), help="inside the object")
    add(
        "--negative-point", type=float, nargs=3, action="append", default=[], metavar=("I", "J", "K"), help="outside it"
    )
    add("--prompts", metavar="FILE.json", help="a prompts file, of any planes and objects")
    add("--save-prompts", metavar="FILE.json", help="write the prompts that were used")
    add("--propagate", default="both", choices=("both", "forward", "backward", "none"), help="default: %(default)s")
    add("--range", type=int, nargs=2, metavar=("A", "B"), help="slices the object is in; without it, it stops itself")
    add(
        "--model",
        help="a name from 'models list' (default: the prompts file's, or embedded where onnxruntime is installed, else "
        "classic)",
    )
    add(
        "--policy",
        default="recent",
        metavar="NAME[:SETTING=VALUE,...]",
        help="which slices are looked back at, see docs/policies.md (default: %(default)s)",
    )
    add(
        "--window",
        help="auto, soft-tissue, lung, bone, brain, mediastinum, liver, percentile, identity or WIDTH/LEVEL; of fused "
        "volumes one for each with commas between",
    )
    add("--device", default="auto", type=_device, help="auto, cpu, cuda or mps (default: %(default)s)")
    add("--time", type=int, help="time point of a 4D volume, from 0")
    add(
        "--fuse",
        action="append",
        default=[],
        metavar="FILE",
        help="a second and third volume of the patient, registered, as further channels: CT --fuse PET --fuse MR",
    )
    add("--component", type=int, help="which value of a volume with many values per voxel, from 0")
    add("--segment-name", help="name of the segment")
    add("--output", required=True, help="OUT.seg.nrrd, .nii.gz, .nrrd, .mha, or .dcm for DICOM SEG")
    add("--preview", metavar="OUT.png", help="draw the result")
    add("--json", action="store_true", help="print one JSON object with slices, scores, volume and seconds")
    segment.set_defaults(run=_run_segment)


def _device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise argparse.ArgumentTypeError(f"{name!r} is not auto, cpu, cuda, cuda:1 or mps")
    return name


def _add_web(commands: Any, common: argparse.ArgumentParser) -> None:
    app = commands.add_parser(
        "web",
        parents=[common],
        help="open the browser app",
        description="Serves this machine only, unless --certificate, --key and --token-file are given with --host.",
    )
    add = app.add_argument
    add("files", nargs="*", metavar="FILE", help="volume, DICOM folder, .seg.nrrd, .mrb or prompts .json to open")
    add("--port", type=int, default=0, help="default: any that is free")
    add("--host", default="127.0.0.1", help="default: %(default)s, this machine only")
    add("--no-browser", action="store_true", help="print the address, open nothing")
    add("--certificate", default="", metavar="FILE.pem", help="for TLS")
    add("--key", default="", metavar="FILE.pem", help="the certificate's key")
    add("--token-file", metavar="FILE", help="one line that a browser must know; without it one is made")
    add("--sessions", type=int, default=4, help="most sessions at a time (default: %(default)s)")
    add("--idle-minutes", type=float, default=120.0, help="a session not used so long ends (default: %(default)s)")
    add("--max-upload-mb", type=int, default=2048, help="most that one upload may have (default: %(default)s)")
    app.set_defaults(run=_run_web)


def _add_models(commands: Any, common: argparse.ArgumentParser) -> None:
    models = commands.add_parser("models", help="which models there are; get and remove their weights")
    actions = models.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    listing = actions.add_parser("list", parents=[common], help="all models, and whether they are ready")
    info = actions.add_parser("info", parents=[common], help="all that is known of a model")
    download = actions.add_parser("download", parents=[common], help="fetch a model's weights from its makers")
    bring = actions.add_parser("import", parents=[common], help="take in a weights file that you have")
    remove = actions.add_parser("remove", parents=[common], help="delete a model's weights")
    for action in (info, download, remove):
        action.add_argument("name", help="a name from 'models list'")
    for action in (listing, info):
        action.add_argument("--json", action="store_true")
    for action in (listing, info, bring, remove):
        action.set_defaults(run=_run_models)
    download.add_argument("--accept-licence", action="store_true", help="without being asked")
    download.set_defaults(run=_run_models_download)
    bring.add_argument("file", help=".pt or .safetensors of a family known here")
    bring.add_argument("--name", help="default: found by the file's hash or name")


def _run_segment(options: argparse.Namespace) -> int:
    from SegmentAnythingMedLib.io import check_output, read_fused, read_volume
    from SegmentAnythingMedLib.preview import check_preview_path
    from SegmentAnythingMedLib.prompts_file import PromptsFile, save_prompts
    from SegmentAnythingMedLib.segmenting import run_job, write_result

    _check_paths(options)
    volume = read_volume(options.volume, series=options.series, component=options.component)
    volume = read_fused(volume, options.fuse)
    check_output(options.output, volume)
    if options.preview:
        check_preview_path(options.preview)
    job = _job(options, volume)
    with _Interrupt.watching() as interrupt, _Bar.on_terminal() as bar:
        result = run_job(volume, job, on_slice=bar.show, is_cancelled=lambda: interrupt.asked)
        bar.clear()
        write_result(result, options.output, options.preview)
    if options.save_prompts:
        saved = PromptsFile(job.objects, job.time, job.model, job.window)
        save_prompts(options.save_prompts, saved, volume)
    summary = result.summary() | {"output": str(options.output), "preview": options.preview}
    print(json.dumps(summary) if options.json else _sentences(summary))
    if result.cancelled:
        print(f"Cancelled: {options.output} holds the slices that were done.", file=sys.stderr)
        return EXIT_CANCELLED
    return EXIT_DONE


def _run_prompts(options: argparse.Namespace) -> int:
    print("\n".join(run_prompts(options)))
    return EXIT_DONE


def _run_learn(options: argparse.Namespace) -> int:
    print("\n".join(run_learn(options)))
    return EXIT_DONE


def _check_paths(options: argparse.Namespace) -> None:
    """Refuse to write over an input, or two results over each other."""
    written = {"--output": options.output, "--preview": options.preview, "--save-prompts": options.save_prompts}
    taken = {Path(name).resolve(): "a volume to fuse" for name in options.fuse}
    taken[Path(options.volume).resolve()] = "the volume"
    if options.prompts:
        taken[Path(options.prompts).resolve()] = "the prompts file"
    folders = (options.volume, *options.fuse)
    for option, name in written.items():
        if name is None:
            continue
        path = Path(name).resolve()
        inside = any(Path(folder).is_dir() and Path(folder).resolve() in path.parents for folder in folders)
        if path in taken or (inside and path.exists()):
            raise OutputError(f"{option} {name} is {taken.get(path, 'a file of the volume')}: choose another name.")
        if not path.parent.is_dir():
            raise OutputError(f"{option} {name} cannot be written: its folder does not exist.")
        taken[path] = option


def _job(options: argparse.Namespace, volume: Any) -> Any:
    """The job the options describe."""
    from SegmentAnythingMedLib.geometry import Plane
    from SegmentAnythingMedLib.models.registry import default_model
    from SegmentAnythingMedLib.prompts import BoxPrompt, PointPrompt
    from SegmentAnythingMedLib.prompts_file import ObjectPrompts, PromptsFile, clean_name, load_prompts
    from SegmentAnythingMedLib.propagation import Direction
    from SegmentAnythingMedLib.segmenting import Job

    replayed = load_prompts(options.prompts).on_volume(volume) if options.prompts else PromptsFile(())
    plane = Plane.named(options.plane, volume.geometry)
    typed: list[Any] = []
    if options.slice is not None and options.box is None:
        raise PromptError("--slice goes with --box; a point says its slice itself.")
    if options.box is not None:
        if options.slice is None:
            raise PromptError("--box needs --slice: the index of the slice it was drawn on.")
        typed.append(BoxPrompt.on_slice(tuple(options.box), options.slice, plane))
    typed += [PointPrompt(tuple(point), True, plane) for point in options.point]
    typed += [PointPrompt(tuple(point), False, plane) for point in options.negative_point]
    objects = [*replayed.objects]
    if typed:
        number = max((item.object_id for item in objects), default=0) + 1
        objects.append(ObjectPrompts(number, tuple(typed), clean_name(options.segment_name or "")))
    elif options.segment_name and len(objects) == 1:
        objects = [ObjectPrompts(objects[0].object_id, objects[0].prompts, clean_name(options.segment_name))]
    first, last = options.range or (None, None)
    return Job(
        tuple(objects),
        None if options.propagate == "none" else Direction(options.propagate),
        first,
        last,
        options.model or replayed.model or default_model(),
        options.device,
        options.policy,
        options.window or replayed.window or "auto",
        options.time if options.time is not None else replayed.time or 0,
    )


def _sentences(summary: dict[str, Any]) -> str:
    lines = []
    for item in summary["objects"]:
        indices = [one["index"] for one in item["slices"]]
        where = f"{len(indices)} slices from {min(indices)} to {max(indices)}" if indices else "no slice"
        size = "" if item["volume_ml"] is None else f"{item['volume_ml']:.1f} ml, "
        lines.append(f"{item['name']}: {size}{item['voxels']} voxels, {where}, score {item['score']:.2f}")
    lines.append(
        f"{summary['model']} on {summary['device']}, {summary['seconds']['total']:.1f} s, saved {summary['output']}"
    )
    return "\n".join(lines)


def _run_models(options: argparse.Namespace) -> int:
    from SegmentAnythingMedLib.models.registry import ModelRegistry
    from SegmentAnythingMedLib.models.weights import commands

    registry = ModelRegistry()
    if options.action == "import":
        commands.import_model(options.file, registry, options.name, print)
    elif options.action == "remove":
        commands.remove_model(options.name, registry, print)
    else:
        listed = options.action == "list"
        found = [commands.model_row(card, registry) for card in registry.cards] if listed else None
        found = commands.model_fields(registry.card(options.name), registry) if found is None else found
        lines = commands.list_lines if listed else commands.info_lines
        print(json.dumps(found) if options.json else "\n".join(lines(found)))
    return EXIT_DONE


def _run_models_download(options: argparse.Namespace) -> int:
    from SegmentAnythingMedLib.models.registry import ModelRegistry
    from SegmentAnythingMedLib.models.weights.commands import download_model

    ask, show = _ask if sys.stdin.isatty() else None, _show_download if sys.stderr.isatty() else lambda _: None
    try:
        download_model(options.name, ModelRegistry(), options.accept_licence, ask, print, show)
    except KeyboardInterrupt:
        print("\nStopped; what came is kept: the same command goes on from there.", file=sys.stderr)
        return EXIT_CANCELLED
    return EXIT_DONE


def _ask(question: str) -> bool:
    print(f"{question} [y/n] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _show_download(progress: Any) -> None:
    part = "" if progress.fraction is None else f"{progress.fraction:4.0%} of {progress.total / 1e6:.0f} MB, "
    ending = "\n" if progress.done == progress.total else ""
    print(f"\r{part}{progress.done / 1e6:.1f} MB here  ", end=ending, file=sys.stderr, flush=True)


def _run_demo(options: argparse.Namespace) -> int:
    from SegmentAnythingMedLib.demo import open_app, run_demo, why_no_app

    with _Bar.on_terminal() as bar:
        report = run_demo(Path(options.output), on_slice=bar.show)
        bar.clear()
    if options.json:
        print(json.dumps(report))
        return EXIT_DONE
    print(
        f"{report['organ']} from one box: Dice {report['dice']:.3f} against the phantom's truth, "
        f"{report['volume_ml']:.0f} ml, {report['seconds']:.1f} s with {report['model']}"
    )
    for file in report["files"]:
        print(f"  {file}")
    reason = "it was not wanted." if options.no_app else why_no_app()
    if reason:
        print(f"The app is not opened: {reason}")
        return EXIT_DONE
    print('Opening the app with the box on the organ: press "Both ways" to carry the outline through the volume.')
    open_app(Path(options.output), lambda sentence: print(sentence, flush=True))
    return EXIT_DONE


def _run_web(options: argparse.Namespace) -> int:
    from SegmentAnythingMedLib.demo import missing_web_package

    reason = missing_web_package()
    if reason:
        raise ModelUnavailableError(reason)
    from SegmentAnythingMedLib.web.security import Exposure, read_token
    from SegmentAnythingMedLib.web.serving import WebOptions, serve
    from SegmentAnythingMedLib.web.sessions import SessionLimits

    token = read_token(options.token_file) if options.token_file else ""
    exposure = Exposure(options.host, options.port, options.certificate, options.key, token)
    limits = SessionLimits(max(1, options.sessions), 60.0 * options.idle_minutes, max(1, options.max_upload_mb))
    wanted = WebOptions(tuple(options.files), exposure, limits, not options.no_browser)
    serve(wanted, lambda sentence: print(sentence, flush=True))
    return EXIT_DONE


class _Interrupt:
    """Ctrl-C asks the job to end after the slice in work; a second Ctrl-C ends at once."""

    def __init__(self) -> None:
        self.asked = False

    @classmethod
    @contextmanager
    def watching(cls) -> Iterator[_Interrupt]:
        interrupt = cls()

        def ask(number: int, frame: object) -> None:
            if interrupt.asked:
                raise KeyboardInterrupt
            interrupt.asked = True

        before = signal.signal(signal.SIGINT, ask)
        try:
            yield interrupt
        finally:
            signal.signal(signal.SIGINT, before)


class _Bar:
    """A progress bar with the time left, on a terminal; nothing when piped."""

    def __init__(self, shown: bool) -> None:
        self._shown = shown
        self._drawn = False

    @classmethod
    @contextmanager
    def on_terminal(cls) -> Iterator[_Bar]:
        bar = cls(sys.stderr.isatty())
        try:
            yield bar
        finally:
            bar.clear()

    def show(self, result: Any) -> None:
        if not self._shown or not result.total:
            return
        filled = _BAR_WIDTH * result.done // result.total
        bar = "#" * filled + "." * (_BAR_WIDTH - filled)
        left = f"{result.seconds_left:.0f} s left"
        print(f"\r{bar} slice {result.done} of {result.total}, {left}   ", end="", file=sys.stderr, flush=True)
        self._drawn = True

    def clear(self) -> None:
        if self._drawn:
            print("\r" + " " * (_BAR_WIDTH + 40) + "\r", end="", file=sys.stderr, flush=True)
            self._drawn = False
