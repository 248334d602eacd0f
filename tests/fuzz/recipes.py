"""Changed recipes through ``domainnorm check``: ``python -m tests.fuzz.recipes --count 100``.

For each kind of change ``count`` shipped recipes, as they are or with every default spelled out, or
parts of them, are checked in this process. Each has to end with exit code 0, and a plan of its
stages, or with 2 and a message. Anything else is a fault: an exception, another code, code of the
recipe that is executed, a message without end or with control characters, seconds without answer.
"""

from __future__ import annotations

import copy
import functools
import io
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from domainnorm.cli import main as domainnorm
from domainnorm.recipe import list_shipped, load_recipe
from domainnorm.recipe.tree import shipped_folder, split_overrides
from domainnorm.run.plan import plan_stages
from tests.fuzz.command import parser_of, tabulate
from tests.fuzz.images import damaged

MARKER = "executed"
_SECONDS, _LONGEST, _MEMORY = 5.0, 20_000, 6 * 2**30
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_RAW = "PUT-YAML-HERE"  # a text that stands for YAML as it is
_VALUES = yaml.safe_load(
    "[null, true, '', ' ', x, '1', 'true', 'null', '???', 'nan', '=', all, default, name, [], {},"
    " [null], [[]], {x: 1}, {name: null}, {1: 2}, {null: []}, !!binary G1s=, 2020-01-01]"
)
_NUMBERS = yaml.safe_load(
    "[0, -1, 1, 2, 3, 0.5, 255, 2147483647, 2147483648, 4294967296, 9223372036854775808, .nan,"
    f" .inf, -.inf, -0.0, 1.0e-320, 1.0e-30, 1.0e+30, 1.0e+308, -1.0e+308, -{10**30}, {10**400}]"
)
_LETTERS = [*"\0\x7f\x85\r\u2028\u202e\ufeffé😀\t\n\\'\"", "\x1b[31m", "\x1b]0;x\x07", "\x9b1m"]


def _words(text: str) -> list[str]:
    """Words with two spaces, or the end of a line, between them."""
    return re.split(r"  |\n", text.strip())


_YAML = _words(rf"""
!!python/object/apply:os.system ['touch {MARKER}']  !!python/object/new:os.system ['touch {MARKER}']
!!python/object/apply:subprocess.getoutput ['touch {MARKER}']  !!python/name:os.system ''  !x 3  |
!!binary aGVsbG8=  !!set {{a, b}}  !!omap [a: 1]  !!float '1'  &a [*a]  &a x  *a  {{<<: 3}}
{{<<: {{x: 1}}}}  2020-13-45  1:30:00  0o17  0x1F  1_000  ._  .inf  .nan  0.1e  ~  >-  ?  -  [  ]
{{  }}  '  "  "\uD800"  "\x1b[31m"  "\0"  @x  `  %YAML 9  ---  ...  # x  ,  {{a: 1, a: 2}}
{{[1, 2]: 3}}  {{? {{a: 1}} : 2}}  yes  {{a, a}}  !<tag:x> 3
[!!python/object/apply:os.system ['touch {MARKER}']]
""")
_POINTERS = _words(r"""
${seed}  ${trainer}  ${data.source}  ${data.target[0]}  ${.x}  ${..x}  ${x.y}  ${oc.env:HOME}  ${
${oc.env:X,${seed}}  ${oc.create:{}}  ${oc.decode:1}  ${oc.select:x}  }  $  ${}  ${a${b}}  ${sëed}
\${seed}  x${seed}y  ${seed:1}  ${[}  ${method.name}  ${backbone}  ${oc.dict.keys:data}  ${${seed}}
""")
_PLACES = _words(f"""
../../x  /etc/passwd  /dev/zero  ~/x  ~nobody/x  file:///x  C:\\x  .  ..  /  os.system  *  ?
torch.nn.Linear  domainnorm.methods.tent.TENT  builtins.eval  a/b.yaml  data/scans  /dev/x.pth
data/../data/scans  {"a/" * 3000}  {"x" * 300}
""")

Tree = dict[Any, Any]
Change = Callable[[Tree, random.Random], None]


class Case(NamedTuple):
    """Files by name, and the words after ``check``."""

    files: dict[str, bytes]
    words: list[str]


class TooLongError(BaseException):
    """No ``except`` of the product may catch it."""


@functools.cache
def bases() -> list[tuple[str, str, str]]:
    """Every shipped recipe as it is, and spelled out, and with name and text of each of its parts.

    The latter two are empty where the recipe itself is to be changed.
    """
    plan_stages(load_recipe("quickstart"))  # what is imported is not timed
    found = []
    recipes, configs = shipped_folder("recipes"), shipped_folder("configs")
    for name in list_shipped("recipes"):
        text = (recipes / f"{name}.yaml").read_text(encoding="utf-8")
        small = ["data.per_domain=40", "backbone.name=test_resnet"] if name == "quickstart" else []
        found += [(text, "", ""), (load_recipe(name, small).to_yaml(), "", "")]
        parts = yaml.safe_load(text)["configs"]
        found += [(text, part, (configs / f"{part}.yaml").read_text()) for part in parts]
    return found


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every mapping or list within a tree, with each of its keys."""
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], (dict, list)):
            yield from places(tree[key])


def _put(value: Callable[[random.Random, Any], Any]) -> Change:
    def change(tree: Tree, draw: random.Random) -> None:
        holder, key = draw.choice(list(places(tree)))
        holder[key] = value(draw, holder[key])

    return change


def _lettered(draw: random.Random, value: Any) -> str:
    at = draw.randrange(len(str(value)) + 1)
    return str(value)[:at] + draw.choice(_LETTERS) + str(value)[at:]


def _wrapped(draw: random.Random, value: Any) -> Any:
    pairs = list(map(list, value.items())) if isinstance(value, dict) else [value, value]
    mapping = dict(enumerate(value)) if isinstance(value, list) else {"name": value}
    code = {"_target_": "os.system", "_args_": f"touch {MARKER}"}
    return draw.choice([[value], pairs, mapping, code, str(value)])


def _nested(draw: random.Random, value: Any) -> Any:
    for _ in range(draw.choice([10, 48, 60, 100])):
        value = [value] if draw.random() < 0.5 else {"x": value}
    return draw.choice([value, "a" * 10**5, "a," * 10**4, ["a"] * 10**4, "é" * 300, "a.b" * 999])


def _renamed(tree: Tree, draw: random.Random) -> None:
    holder, key = draw.choice([one for one in places(tree) if isinstance(one[0], dict)])
    alike = [_lettered(draw, key), str(key)[:-1], str(key).upper(), f"{key}.x", f"{key}[0]"]
    other = draw.choice([*alike, "_target_", "class_path", "<<", 3, None, True, "", "x" * 9999])
    holder[other] = holder.pop(key)


def _deleted(tree: Tree, draw: random.Random) -> None:
    holder, key = draw.choice(list(places(tree)))
    del holder[key]


def _swapped(tree: Tree, draw: random.Random) -> None:
    (one, key), (other, name) = (draw.choice(list(places(tree))) for _ in range(2))
    first, second = copy.deepcopy((one[key], other[name]))
    one[key], other[name] = second, first


CHANGES: dict[str, Change] = {
    "value": _put(lambda draw, value: draw.choice(_VALUES)),
    "number": _put(lambda draw, value: draw.choice(_NUMBERS)),
    "syntax": _put(lambda draw, value: _RAW),
    "pointer": _put(lambda draw, value: draw.choice(_POINTERS)),
    "place": _put(lambda draw, value: draw.choice(_PLACES)),
    **{"letters": _put(_lettered), "wrapped": _put(_wrapped), "nested": _put(_nested)},
    **{"renamed": _renamed, "deleted": _deleted, "swapped": _swapped},
}
KINDS = (*CHANGES, "repeated", "bytes", "override", "reference")


def changed(kind: str, text: str, draw: random.Random) -> bytes:
    """A text with one or two things wrong."""
    if kind == "bytes":
        return damaged(text.encode(), draw)
    if kind == "repeated":
        lines = text.splitlines(keepends=True)
        lines.insert(draw.randrange(len(lines)), draw.choice(lines))
        return "".join(lines).encode()
    tree = yaml.safe_load(text)
    for _ in range(draw.randint(1, 2)):
        if any(isinstance(holder, dict) for holder, _ in places(tree)):
            CHANGES[kind](tree, draw)
    made = yaml.safe_dump(tree, allow_unicode=draw.random() < 0.5, sort_keys=False)
    return made.replace(_RAW, draw.choice(_YAML)).encode()


def _override(text: str, draw: random.Random) -> str:
    keys = [str(key) for holder, key in places(yaml.safe_load(text)) if isinstance(holder, dict)]
    key = ".".join(draw.sample(keys, draw.randint(1, 2)))
    odd = draw.choice(draw.choice([_VALUES, _NUMBERS, _LETTERS, _YAML, _POINTERS, _PLACES]))
    word = f"{key}{draw.choice(['=', '=', '=', '.x=', '[0]=', '+=', ''])}{odd}"
    return word.replace("\0", "")  # no command line has it


def case_of(kind: str, draw: random.Random) -> Case:
    """A recipe and words of which something is wrong."""
    recipe, name, part = draw.choice(bases())
    words = ["recipe.yaml"] + ["data.per_domain=40"] * ("data/scans" in recipe)
    files = {"recipe.yaml": recipe.encode()}
    if kind == "override":
        words += [_override(recipe, draw) for _ in range(draw.randint(1, 2))]
    elif kind == "reference":
        odd = [*_PLACES, *_POINTERS, *_LETTERS[1:], "quickstart", "pacs", "\udcff", "x" * 300]
        words.insert(0, draw.choice(odd) + draw.choice(["", ".yaml"]))
    elif part:
        files[f"configs/{name}.yaml"] = changed(kind, part, draw)
    else:
        files["recipe.yaml"] = changed(kind, recipe, draw)
    return Case(files, words)


def outcome(case: Case) -> str:
    """What becomes of a case in the present folder: ``ok``, ``refused``, or a fault in words."""
    for name, content in case.files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content)
    said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    started = time.process_time()
    signal.setitimer(signal.ITIMER_REAL, 20 * _SECONDS)
    try:
        with redirect_stdout(said), redirect_stderr(said):
            code = domainnorm(["check", *case.words])
        references, overrides = split_overrides(case.words)
        for reference in references if code == 0 else ():
            plan_stages(load_recipe(reference, overrides))
    except (Exception, SystemExit, TooLongError) as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    took, text = time.process_time() - started, said.buffer.getvalue().decode()
    control = _CONTROL.search(text)
    wrong = {
        "code was executed": Path(MARKER).exists(),
        f"exit code {code}": code not in (0, 2),
        "no message": not text,
        f"took {took:.0f} s": took > _SECONDS,
        f"{len(text)} letters": len(text) > _LONGEST,
        f"control character {control and control[0]!r}": control,
    }
    found = [fault for fault, is_so in wrong.items() if is_so]
    return f"{', '.join(found)}: {text[:400]!r}" if found else "refused" if code else "ok"


def _stop(number: int, frame: Any) -> None:
    raise TooLongError


def fuzz(kind: str, seed: int, count: int, place: Path) -> tuple[Counter[str], list[str]]:
    """How often each thing came of it, and faults in words."""
    draw = random.Random(f"{kind} {seed}")
    found: Counter[str] = Counter()
    faults: list[str] = []
    before, usual = Path.cwd(), signal.signal(signal.SIGALRM, _stop)
    try:
        for number in range(count):
            folder = place / kind / str(number)
            folder.mkdir(parents=True)
            os.chdir(folder)
            case = case_of(kind, draw)
            became = outcome(case)
            found[became] += 1
            if became not in ("ok", "refused"):
                faults.append(f"{kind} {number}: {str(case.words)[:200]}: {became}")
                print(faults[-1], file=sys.stderr, flush=True)
    finally:
        os.chdir(before)
        signal.signal(signal.SIGALRM, usual)
    return found, faults


def main() -> int:
    asked = parser_of("recipes", __doc__, 20, "recipes of each kind of change").parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    with tempfile.TemporaryDirectory() as place:
        return tabulate(
            "change",
            ("refused", "ok"),
            ((kind, *fuzz(kind, asked.seed, asked.count, Path(place))) for kind in KINDS),
        )


if __name__ == "__main__":
    sys.exit(main())
