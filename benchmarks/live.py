"""From a model to masks on video, on this CPU: trocar beside what its users would write without it, in one run.

    python benchmarks/live.py --video Video.avi [--model MODEL] [--repeats 5] [--short] [--json FILE]

Every contestant is a process of its own, so that no library's threads get in another's way. They take turns: in each of
`--repeats` rounds everyone runs once, the order reversed from round to round, the others asleep. Told are medians over
rounds, and ratios as medians of each round's ratio with the least and the greatest.

Same clip, network frames of 512x512, an overlay video as output:

- trocar: the model's network in int8, `trocar.predict`; also at the model's own size, and to masks only;
- Keras: the notebook's network with random weights, float32, in a `tf.function`, with the notebook's steps for images
  and OpenCV around it (VideoCapture, VideoWriter);
- smp: DeepLabV3Plus with mobilenet_v2 and random weights, PyTorch float32, `inference_mode`, with OpenCV around it;
- frame loop: the same int8 graph as trocar's, compiled for latency and called frame by frame as the predictor of
  Ultralytics does (capture, letterbox, infer, resize logits, threshold, draw, write). What costs that one more is left
  out: it scales to float tensors and writes Motion JPEG; here it feeds uint8 and writes MPEG-4 like the others.

Networks with random weights run as fast as trained ones. int8 graphs for sizes that the model was not exported in are
quantised here with frames of the clip, ungated: they are for timing. Needs the extras `export` and `keras`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, Final

import av
import cv2
import numpy as np
from numpy.typing import NDArray

SIDE: Final = 512
COLOUR: Final = (233, 180, 86)  # BGR
Turn = Callable[[], dict[str, float]]


# ------------------------------------------------------------------ contestants: each gives what takes one turn


def trocar_512(options: argparse.Namespace) -> Turn:
    """The model at 512x512 in int8."""
    from trocar.inference.engines.openvino import OpenVINOEngine, openvino_core
    from trocar.inference.predictor import Predictor
    from trocar.model_folder import read_card, resolve_model

    card = read_card(resolve_model(options.model)).at_size((SIDE, SIDE))
    read = openvino_core().read_model
    one, many = (
        Predictor(OpenVINOEngine(read(options.graphs / "model-512.xml"), precision="int8", aim=aim), card)
        for aim in ("latency", "throughput")
    )
    return _trocar_turn(one, many, options)


def trocar_own(options: argparse.Namespace) -> Turn:
    """The model as it is: its own size, the engine that `auto` takes."""
    from trocar.inference.predictor import Predictor

    one, many = (Predictor.open(options.model, "cpu", aim=aim) for aim in ("latency", "throughput"))
    return _trocar_turn(one, many, options)


def _trocar_turn(one: Any, many: Any, options: argparse.Namespace) -> Turn:
    from trocar.data.preprocess import prepare_image
    from trocar.inference.predict import predict

    frame = prepare_image(next(_rgb_frames(options.clip)), one.preprocess)[0][None]
    warm = [many(next(_rgb_frames(options.clip))) for _ in range(5)]
    assert warm[0].mask.any(), "an empty mask makes drawing and writing cheap"

    def turn() -> dict[str, float]:
        result = {"network_ms": _milliseconds(lambda: one.engine(frame), options.calls)}
        passes = {
            "overlay": (many, {"masks": False}),
            "masks": (many, {"overlays": False}),
            "one_at_a_time": (one, {"masks": False}),
        }
        for name, (predictor, wanted) in passes.items():
            with tempfile.TemporaryDirectory() as out:
                start = time.perf_counter()
                done = predict([options.clip], predictor, out, **wanted).predictions[0].frames
                result[f"{name}_fps"] = done / (time.perf_counter() - start)
        return result

    return turn


def keras(options: argparse.Namespace) -> Turn:
    """The notebook's network, its preprocessing, and OpenCV."""
    tests = Path(__file__).resolve().parents[1] / "tests/interop"
    sys.path.insert(0, str(tests))
    import tensorflow as tf
    from keras_notebook import build_notebook, spread_logits

    network = build_notebook(SIDE)
    spread_logits(network, np.random.default_rng(0).random((1, SIDE, SIDE, 3), np.float32))
    infer = tf.function(lambda x: tf.sigmoid(network(x, training=False)))

    def probability(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        grey = cv2.blur(cv2.equalizeHist(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)), (4, 4))
        x = cv2.resize(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), (SIDE, SIDE)).astype(np.float32) / 255
        return np.asarray(infer(tf.constant(x[None])))[0, :, :, 0]

    x = tf.constant(np.random.default_rng(0).random((1, SIDE, SIDE, 3), np.float32))
    return _opencv_turn(probability, lambda: infer(x), options)


def smp(options: argparse.Namespace) -> Turn:
    """DeepLabV3Plus of segmentation-models-pytorch and OpenCV."""
    import segmentation_models_pytorch
    import torch

    torch.manual_seed(0)
    network = segmentation_models_pytorch.DeepLabV3Plus("mobilenet_v2", encoder_weights=None, classes=1).eval()
    mean, std = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)

    @torch.inference_mode()
    def probability(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        x = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), (SIDE, SIDE)).astype(np.float32) / 255
        x = np.ascontiguousarray(((x - mean) / std).transpose(2, 0, 1))
        return np.asarray(network(torch.from_numpy(x)[None]).sigmoid()[0, 0].numpy())

    x = torch.rand(1, 3, SIDE, SIDE)

    @torch.inference_mode()
    def call() -> None:
        network(x)

    return _opencv_turn(probability, call, options)


def frame_loop(options: argparse.Namespace) -> Turn:
    """The same int8 graph in a loop that does one thing after the other."""
    from trocar.inference.engines.openvino import import_openvino

    core = import_openvino().Core()
    graph = core.read_model(options.graphs / "model-512.xml")
    graph.reshape([1, SIDE, SIDE, 3])
    compiled = core.compile_model(graph, "CPU", {"PERFORMANCE_HINT": "LATENCY"})

    def probability(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        height, width = frame.shape[:2]
        scale = min(SIDE / height, SIDE / width)
        h, w = round(height * scale), round(width * scale)
        top, left = (SIDE - h) // 2, (SIDE - w) // 2
        small = cv2.resize(frame, (w, h), interpolation=cv2.INTER_LINEAR)
        grey = (114, 114, 114)
        padded = cv2.copyMakeBorder(small, top, SIDE - h - top, left, SIDE - w - left, cv2.BORDER_CONSTANT, value=grey)
        logits = compiled(cv2.cvtColor(padded, cv2.COLOR_BGR2RGB)[None])[0][0, 0]
        return np.asarray(
            logits[top : top + h, left : left + w] + np.float32(0.5)
        )  # over 0.5 where the logit is over 0

    x = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8)
    return _opencv_turn(probability, lambda: compiled(x), options)


def notebook_int8(options: argparse.Namespace) -> Turn:
    """The notebook's network in trocar, int8 for OpenVINO; the network alone."""
    from trocar.inference.engines.openvino import OpenVINOEngine, openvino_core

    engine = OpenVINOEngine(openvino_core().read_model(options.graphs / "notebook.xml"), precision="int8")
    x = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8)
    return lambda: {"network_ms": _milliseconds(lambda: engine(x), options.calls)}


def cold_start(options: argparse.Namespace) -> Turn:
    """A new process until the first mask of one image: the command, and the library."""
    from trocar.data.files import write_png
    from trocar.model_folder import resolve_model

    model = str(resolve_model(options.model))
    image = options.graphs / "one.png"
    write_png(image, next(_rgb_frames(options.clip)))
    library = (
        "import sys, cv2, trocar; found = trocar.load(sys.argv[1])(cv2.imread(sys.argv[2])[..., ::-1].copy()); "
        "sys.stdout.write(str(int(found.mask.sum()))); sys.stdout.flush(); sys.stdin.read()"
    )

    def turn() -> dict[str, float]:
        with tempfile.TemporaryDirectory() as out:
            mask = Path(out) / "masks/one.png"
            command = [sys.executable, "-m", "trocar", "predict", str(image), "--model", model, "--out", out]
            start = time.perf_counter()
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                while not mask.exists():
                    assert process.poll() in (None, 0), "trocar predict failed"
                    time.sleep(0.001)
                by_command = time.perf_counter() - start
        start = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-c", library, model, str(image)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.read(1), "trocar.load failed"
            by_library = time.perf_counter() - start
            process.communicate(b"")
        return {"command_s": by_command, "library_s": by_library}

    return turn


CONTESTANTS: Final = {
    function.__name__: function
    for function in (trocar_512, trocar_own, keras, smp, frame_loop, notebook_int8, cold_start)
}


def _opencv_turn(
    probability: Callable[[NDArray[np.uint8]], NDArray[np.float32]], call: Callable[[], object], options: Any
) -> Turn:
    """A loop as people write it around a network that gives a probability (h, w) for a BGR frame."""

    def run(frames: int) -> float:
        capture = cv2.VideoCapture(options.clip)
        size_wh = (int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))
        with tempfile.TemporaryDirectory() as out:
            start, done = time.perf_counter(), 0
            fourcc = cv2.VideoWriter.fourcc(*"mp4v")
            writer = cv2.VideoWriter(f"{out}/overlay.mp4", fourcc, capture.get(cv2.CAP_PROP_FPS), size_wh)
            while done < frames:
                fine, frame = capture.read()
                if not fine:
                    break
                mask = cv2.resize(probability(frame), size_wh, interpolation=cv2.INTER_LINEAR) > 0.5
                painted = frame.copy()
                painted[mask] = COLOUR
                writer.write(cv2.addWeighted(painted, 0.4, frame, 0.6, 0))
                done += 1
            writer.release()
            capture.release()
        return done / (time.perf_counter() - start)

    run(2)
    share = 6 if _milliseconds(call, 1) > 100 else 1  # the slow ones need fewer frames for the same certainty
    frames, calls = (max(1, count // share) for count in (options.frames, options.calls))
    return lambda: {"network_ms": _milliseconds(call, calls), "overlay_fps": run(frames)}


def _milliseconds(call: Callable[[], object], count: int) -> float:
    """Median over `count` calls, after one that does not count."""
    spent = []
    for _ in range(count + 1):
        start = time.perf_counter()
        call()
        spent.append(1000 * (time.perf_counter() - start))
    return median(spent[1:])


def _rgb_frames(clip: str) -> Iterator[NDArray[np.uint8]]:
    from trocar.inference.video import VideoReader

    with VideoReader(clip) as reader:
        yield from (frame.image for frame in reader)


# ------------------------------------------------------------------ before the first turn


def cut(video: Path, frames: int, clip: Path) -> None:
    """Copy the first frames of a video as they are coded."""
    with av.open(str(video)) as source, av.open(str(clip), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        packets = (packet for packet in source.demux(stream) if packet.size)
        for packet, _ in zip(packets, range(frames), strict=False):
            packet.stream = copy
            target.mux(packet)


def make_graphs(options: argparse.Namespace) -> None:
    """The int8 graphs at 512x512: the model's network, and the notebook's with random weights."""
    import nncf
    import torch

    from trocar.config import ModelSettings, PreprocessSettings
    from trocar.data.preprocess import prepare_image
    from trocar.export.convert import to_openvino, trace
    from trocar.inference.engines.openvino import import_openvino
    from trocar.inference.engines.torch import load_network
    from trocar.model_folder import read_card, resolve_model
    from trocar.models.build import build_model

    folder = resolve_model(options.model)
    card = read_card(folder).at_size((SIDE, SIDE))
    torch.manual_seed(0)
    plain = PreprocessSettings(size_hw=(SIDE, SIDE), mean=(0, 0, 0), std=(1, 1, 1))
    settings = ModelSettings(architecture="notebook", encoder_weights="none")
    networks = {
        "model-512": load_network(folder, card),
        "notebook": build_model(settings, plain, 2, load_encoder_weights=False).eval(),
    }
    some = [frame for frame, _ in zip(_rgb_frames(options.clip), range(options.calibration), strict=False)]
    frames = [prepare_image(frame, card.preprocess)[0][None] for frame in some]
    for name, network in networks.items():
        graph = to_openvino(trace(network, (SIDE, SIDE)), (SIDE, SIDE))
        mixed = nncf.QuantizationPreset.MIXED
        quantised = nncf.quantize(graph, nncf.Dataset(frames), preset=mixed, subset_size=len(frames))
        import_openvino().save_model(quantised, options.graphs / f"{name}.xml")


# ------------------------------------------------------------------ turns


class Contestant:
    """A process that waits until it is its turn."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        told = json.dumps(
            {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
        )
        command = [sys.executable, __file__, "--play", name, told]
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
        self.name = name
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._answer()  # ready

    def turn(self) -> dict[str, float]:
        """Run once; seconds, milliseconds or frames a second by name."""
        assert self._process.stdin is not None
        self._process.stdin.write("turn\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("ANSWER "):
                answer: dict[str, float] = json.loads(line.removeprefix("ANSWER "))
                return answer
        raise SystemExit(f"{self.name} failed, exit code {self._process.wait()}")

    def end(self) -> None:
        """Let it go."""
        self._process.communicate()


def play(name: str, told: str) -> None:
    """What a contestant's process does."""
    options = argparse.Namespace(**json.loads(told))
    options.graphs = Path(options.graphs)
    if name == "make_graphs":
        make_graphs(options)
        return
    turn = CONTESTANTS[name](options)
    print("ANSWER {}", flush=True)
    for _ in sys.stdin:
        print("ANSWER " + json.dumps(turn()), flush=True)


# ------------------------------------------------------------------ the table


def table(rounds: list[dict[str, dict[str, float]]], own_hw: tuple[int, int]) -> str:
    """Markdown: medians, and ratios of each round."""

    def middle(who: str, what: str) -> float:
        return median(one[who][what] for one in rounds)

    def ratio(how: Callable[[dict[str, dict[str, float]]], float], form: str) -> str:
        values = [how(one) for one in rounds]
        return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"

    def overhead(who: str, what: str) -> str:
        return ratio(lambda one: 1000 / one[who][what] / one[who]["network_ms"] - 1, ".0%")

    def faster(who: str) -> str:
        return ratio(lambda one: one["trocar_512"]["overlay_fps"] / one[who]["overlay_fps"], ".2f")

    square, own = f"{SIDE}x{SIDE}", f"{own_hw[0]}x{own_hw[1]}, the model's own"
    rows = [("work", "measured", "ratio", "target"), ("---",) * 4]
    for who, size in (("trocar_512", square), ("trocar_own", own)):
        aim = ("<= 18 ms", ">= 40/s, <= 35 % over", ">= 45/s, <= 35 % over") if who == "trocar_512" else ("", "", "")
        rows += [
            (f"network alone, int8, {size}", f"{middle(who, 'network_ms'):.1f} ms", "", aim[0]),
            (
                f"end to end to an overlay video, {size}",
                f"{middle(who, 'overlay_fps'):.1f} frames/s",
                f"over the network alone: {overhead(who, 'overlay_fps')}",
                aim[1],
            ),
            (
                f"end to end to masks only, {size}",
                f"{middle(who, 'masks_fps'):.1f} frames/s",
                f"over the network alone: {overhead(who, 'masks_fps')}",
                aim[2],
            ),
            (
                f"end to end to an overlay video, {size}, the engine on one frame at a time (aim latency)",
                f"{middle(who, 'one_at_a_time_fps'):.1f} frames/s",
                "",
                "",
            ),
        ]
    peers = {
        "keras": ("notebook's network in Keras, tf.function float32, OpenCV", ">= 8"),
        "smp": ("smp DeepLabV3Plus mobilenet_v2, PyTorch float32, OpenCV", ">= 4"),
        "frame_loop": ("the same int8 graph in a frame loop, OpenVINO, OpenCV", ">= 1.3"),
    }
    for who, (name, target) in peers.items():
        measured = f"{middle(who, 'overlay_fps'):.1f} frames/s (network alone {middle(who, 'network_ms'):.1f} ms)"
        rows.append((f"{name}, {square}", measured, f"trocar is faster: {faster(who)}", target))
    rows += [
        (
            f"notebook's network alone, int8 in trocar against tf.function float32, {square}",
            f"{middle('notebook_int8', 'network_ms'):.1f} against {middle('keras', 'network_ms'):.1f} ms",
            ratio(lambda one: one["keras"]["network_ms"] / one["notebook_int8"]["network_ms"], ".2f"),
            ">= 5",
        ),
        (
            "cold start to the first mask, `trocar predict one.png`",
            f"{middle('cold_start', 'command_s'):.2f} s",
            "",
            "< 1.2 s",
        ),
        (
            "cold start to the first mask, `trocar.load(model)(image)`",
            f"{middle('cold_start', 'library_s'):.2f} s",
            "",
            "< 1.2 s",
        ),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Prepare, take turns, print the table."""
    if sys.argv[1:2] == ["--play"]:
        play(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, required=True, help="for the figures of docs: EndoVis robotic Video.avi")
    parser.add_argument("--model", help="default: the model that ships; it needs an export in int8 for OpenVINO")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--short", action="store_true", help="a smoke run: its figures mean nothing")
    parser.add_argument("--json", type=Path, help="write every round there too")
    options = parser.parse_args()
    from trocar.machine import machine
    from trocar.model_folder import read_card, resolve_model

    card = read_card(resolve_model(options.model))
    if "openvino-int8" not in card.exports:
        raise SystemExit("the model has no int8 form for OpenVINO: trocar export MODEL --to openvino --int8")
    if options.short:
        options.repeats = min(options.repeats, 1)
    options.frames, options.calls, options.calibration = (6, 1, 2) if options.short else (10_000, 60, 40)
    load, rounds = os.getloadavg()[0], []
    with tempfile.TemporaryDirectory() as scratch:
        options.graphs, options.clip = Path(scratch), f"{scratch}/clip{options.video.suffix}"
        cut(options.video, options.frames, Path(options.clip))
        options.frames = sum(1 for _ in _rgb_frames(options.clip))
        told = json.dumps(
            {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
        )
        subprocess.run([sys.executable, __file__, "--play", "make_graphs", told], check=True, stdout=sys.stderr)
        contestants = [Contestant(name, options) for name in CONTESTANTS]
        for number in range(options.repeats):
            order = contestants if number % 2 == 0 else contestants[::-1]
            rounds.append({contestant.name: contestant.turn() for contestant in order})
            print(f"round {number + 1} of {options.repeats}: {rounds[-1]}", file=sys.stderr, flush=True)
        for contestant in contestants:
            contestant.end()
    facts = machine() | {"load before": round(load, 2), "load after": round(os.getloadavg()[0], 2)}
    print(f"{options.video.name}, {options.frames} frames; {options.repeats} rounds; model {card.name}\n")
    print(table(rounds, card.preprocess.size_hw))
    print("\n" + ", ".join(f"{key} {' '.join(v) if isinstance(v, list) else v}" for key, v in facts.items()))
    if options.json:
        document = {"machine": facts, "model": card.name, "rounds": rounds}
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
