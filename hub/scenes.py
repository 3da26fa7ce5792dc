"""Who lives in the made-up life of the demo, what each does again and again, what they ask, vote on and meet."""

from collections.abc import Mapping
from typing import NamedTuple


class Job(NamedTuple):
    """What an agent does again and again; `error` is what it fails with. A phase may say `{}` of the `size` of the job
    is done."""

    kind: str
    name: str
    phases: tuple[str, str, str]
    error: str
    size: int = 0


WORKERS: Mapping[str, tuple[str, tuple[Job, ...]]] = {
    "builder": (
        "ci",
        (
            Job(
                "wheel", "Build the wheel", ("resolving", "compiling", "packing"), "gcc: error: no space left on device"
            ),
            Job("image", "Build the image", ("pulling the base", "installing", "pushing"), "push denied: 401"),
        ),
    ),
    "tester": (
        "ci",
        (
            Job(
                "suite",
                "Run the integration tests",
                ("collecting", "{} of 640 passed", "{} of 640 passed"),
                "AssertionError: expected 200, got 503 (tests/test_api.py:218)",
                640,
            ),
        ),
    ),
    "reviewer": (
        "coding",
        (
            Job(
                "review", "Review the session store", ("reading", "running it", "writing remarks"), "the branch is gone"
            ),
            Job("audit", "Audit the dependencies", ("listing", "comparing", "summing up"), "the index did not answer"),
        ),
    ),
    "refactorer": (
        "coding",
        (
            Job(
                "auth",
                "Refactor the login of the gateway",
                ("step {} of 12: reading", "step {} of 12: applying the patch", "step {} of 12: running the tests"),
                "the patch does not apply",
                12,
            ),
        ),
    ),
    "researcher": (
        "research",
        (
            Job("notes", "Search the notes", ("collecting", "ranking", "summing up"), "the context is full"),
            Job(
                "papers",
                "Read the new papers",
                ("fetching", "{} of 30 read", "{} of 30 read"),
                "429 Too Many Requests",
                30,
            ),
        ),
    ),
    "archivist": (
        "home",
        (
            Job(
                "photos",
                "Index the photos",
                ("{} of 8,113", "{} of 8,113", "{} of 8,113"),
                "disk is read-only",
                8113,
            ),
        ),
    ),
}
ASKER = "deployer"
SILENT = "transcriber"
AGENTS = (*WORKERS, ASKER, SILENT)


class Scene(NamedTuple):
    """A question, and what comes of each answer: the task that it is about goes on, or is taken back."""

    question: str
    task: str
    outcomes: Mapping[str, tuple[bool, str]]
    default: str


SCENES = (
    Scene(
        "Deploy release 2.4 to production?",
        "Deploy release 2.4",
        {"Deploy": (True, "rolling it out, one machine after the other"), "Wait": (False, "2.4 stays on staging")},
        "Wait",
    ),
    Scene(
        "One test fails in 1 of 40 runs. What shall become of it?",
        "Look into the shaky test",
        {
            "Run it 200 times": (True, "running it 200 times"),
            "Set it aside": (True, "marking it, and filing an issue"),
            "Ignore it": (False, "nobody looks into it"),
        },
        "Ignore it",
    ),
    Scene(
        "Delete 214 files of old backups (38 GiB)?",
        "Clean up the backups",
        {"Delete": (True, "deleting, the oldest first"), "Keep": (False, "all of them stay")},
        "Keep",
    ),
    Scene(
        "Move the session store to the new machine now?",
        "Move the session store",
        {"Move it": (True, "copying 12 million sessions"), "Tonight": (False, "it is put off until tonight")},
        "Tonight",
    ),
)
TOPICS = (
    "Merge #482: rewrite the session store",
    "Take the new model for reviews",
    "Forget notes older than a year",
    "Let the archivist delete duplicates",
)
THREATS = (
    ("prompt_injection", "researcher", "a page asked to ignore all instructions", "high", 0.81, True),
    ("secret_in_output", "builder", "a key was taken out of an answer", "medium", 0.44, True),
    ("path_escape", "archivist", "a path led out of the workspace", "high", 0.7, True),
    ("rate_anomaly", "tester", "twenty calls in a second", "low", 0.12, True),
)
OPEN_THREAT = ("unknown_binary", "builder", "/tmp/.x/sync was started and is not in the image", "critical", 0.93, False)


def scene(number: int) -> Scene:
    """The question with this number."""
    return SCENES[number % len(SCENES)]
