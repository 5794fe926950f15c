"""Examples for the help of each command; a test parses every one of them."""

from __future__ import annotations

# The words of a command -> commands that a reader can copy.
EXAMPLES: dict[str, tuple[str, ...]] = {
    "run": (
        "softbeam run quickstart",
        "softbeam run mine.yaml --set strategy.rounds=4 --seeds 0,1,2",
        "softbeam run quickstart --dry-run",
    ),
    "resume": ("softbeam resume runs/quickstart-20260101-120000",),
    "watch": (
        "softbeam watch runs",
        "softbeam watch runs/quickstart-20260101-120000 --serve",
        "softbeam watch lab --json",
    ),
    "track": (
        "softbeam track runs/quickstart-20260101-120000 --to tensorboard",
        "softbeam track runs/quickstart-20260101-120000 --to mlflow --to trackio",
    ),
    "report": ("softbeam report runs/quickstart-20260101-120000 --out report.html",),
    "compare": (
        "softbeam compare runs/one runs/other --figure front.png",
        "softbeam compare runs --page compare.html",
    ),
    "models": ("softbeam models runs/quickstart-20260101-120000 --json",),
    "export": (
        "softbeam export runs/quickstart-20260101-120000 --client 000-camera --int8",
        "softbeam export runs/quickstart-20260101-120000 --client teacher --format safetensors --out models",
    ),
    "predict": (
        "softbeam predict models/000-camera ~/scenario9 --top 3",
        "softbeam predict models/006-gps - --json",
        "softbeam predict models/006-gps ~/scenario9 --within 1 --wanted 90",
        "softbeam predict models/006-gps incoming --watch",
        "softbeam predict lab/nodes/van-4/models incoming --watch --json",
    ),
    "store list": ("softbeam store list models/000-camera",),
    "store add": ("softbeam store add models/000-camera exported/000-camera --passes data/recording",),
    "store use": ("softbeam store use models/000-camera 0002",),
    "store rollback": ("softbeam store rollback models/000-camera --why slow",),
    "forget": (
        "softbeam forget runs/quickstart-20260101-120000 --client 000-camera",
        "softbeam forget runs/quickstart-20260101-120000 --client 000-camera --in-place",
    ),
    "sweep": (
        "softbeam sweep quickstart --over strategy.temperature=1..8 --trials 20",
        "softbeam sweep quickstart --over training.learning_rate=log(1e-3,1e-2) "
        "--over strategy.aggregator.name=mean|entropy_mean --seeds 0,1",
    ),
    "gallery": ("softbeam gallery", "softbeam run few-labels --dry-run"),
    "strategies": ("softbeam strategies --json",),
    "study": ("softbeam study study-paper --quick",),
    "data make": ("softbeam data make night-shift",),
    "data list": ("softbeam data list --json",),
    "data clean": ("softbeam data clean quickstart --yes", "softbeam data clean --older 30d"),
    "data inspect": ("softbeam data inspect ~/scenario9 --sheet sheet.png",),
    "data validate": ("softbeam data validate my-federation", "softbeam data validate my-federation --json"),
    "data check": ("softbeam data check ~/scenario9 --split pass",),
    "data convert": ("softbeam data convert ~/scenario9",),
    "data export": ("softbeam data export passes --preset s9 --passes 10",),
    "bench statistics": ("softbeam bench statistics --preset s9 --passes 100",),
    "bench referee": ("softbeam bench referee --preset street --frames 60",),
    "bench learning": ("softbeam bench learning --preset s9 --seeds 0 --inputs gps,all",),
    "bench distillation": ("softbeam bench distillation --preset street --seeds 0",),
    "bench few": ("softbeam bench few ~/scenario1 ~/scenario9 --passes 1,2 --seeds 0",),
    "bench worth": ("softbeam bench worth --seeds 0 --json worth.json --figure worth.png",),
    "bench speed": (
        "softbeam bench speed --quick",
        "softbeam bench speed --ratio gps_vs_loop2 --ratio tax --pairs 5 --json",
    ),
    "bench sets": (
        "softbeam bench sets runs/quickstart-20260101-120000 --passes 80 --drift night",
        "softbeam bench sets ~/scenario9 --set data.passes.test=60 --markdown",
    ),
    "bench generation": ("softbeam bench generation --preset s9",),
    "bench warm": ("softbeam bench warm --app torch --messages 3",),
    "bench codecs": ("softbeam bench codecs --codec uint4 --codec top8-uint4",),
    "bench attacks": ("softbeam bench attacks --rule median --attack label_flip --seeds 0",),
    "bench privacy": ("softbeam bench privacy --seeds 0",),
    "bench trackers": ("softbeam bench trackers --frames 8 --future 3",),
    "bench devices": (
        "softbeam bench devices runs/quickstart-20260101-120000 --published",
        "softbeam bench devices runs/quickstart-20260101-120000 --client 000-camera --json",
    ),
    "deploy init": ("softbeam deploy init lab --nodes camera:roof-1 gps:gate-2 --host server.example",),
    "deploy data": ("softbeam deploy data lab",),
    "deploy check": ("softbeam deploy check lab/server",),
    "deploy server": ("softbeam deploy server lab/server",),
    "deploy node": ("softbeam deploy node lab/nodes/roof-1",),
    "deploy up": ("softbeam deploy up lab", "softbeam run quickstart --on lab"),
    "deploy down": ("softbeam deploy down lab",),
    "deploy status": ("softbeam deploy status lab --json",),
    "deploy publish": ("softbeam deploy publish lab", "softbeam deploy publish lab roof-1 --json"),
    "deploy stop": ("softbeam deploy stop lab",),
    "deploy revoke": ("softbeam deploy revoke lab roof-1",),
}
EVERYWHERE = ("softbeam run quickstart", "softbeam data make night-shift --json", "softbeam --install-completion")


def epilog_of(words: str) -> str:
    """The examples of a command as the end of its help, not wrapped."""
    lines = EXAMPLES.get(words, EVERYWHERE if not words else ())
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)]) if lines else ""
