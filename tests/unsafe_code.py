"""A walk over a syntax tree that judges every use of what can run other programs or unpickle."""

import ast
from typing import NamedTuple

# Modules whose functions are judged below: they may be named only to take something from them, so
# that a function cannot be reached behind the walk's back (`getattr(os, "system")`).
JUDGED = (
    "builtins",
    "importlib",
    "numpy",
    "os",
    "shutil",
    "subprocess",
    "tarfile",
    "tempfile",
    "torch",
    "yaml",
    "zipfile",
)
FORBIDDEN_MODULES = (
    "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "lxml", "marshal", "pickle", "pty",
    "runpy", "shelve", "xml", "xmlrpc", "zipimport",
)  # fmt: skip
# The exception alone, to catch what torch's restricted reader raises.
ALLOWED_NAMES = {"pickle.UnpicklingError"}
FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec", "builtins.compile",
    "builtins.__import__", "importlib.import_module",
    "os.system", "os.popen", "os.startfile", "os.posix_spawn", "os.posix_spawnp",
    "subprocess.Popen", "subprocess.getoutput", "subprocess.getstatusoutput",
    "asyncio.create_subprocess_exec", "asyncio.create_subprocess_shell",
    "shutil.unpack_archive", "tempfile.mktemp",
    "torch.hub.load", "torch.jit.load", "yaml.load", "yaml.load_all", "yaml.unsafe_load",
    "yaml.full_load", "yaml.UnsafeLoader", "yaml.Loader", "yaml.FullLoader",
}  # fmt: skip
FORBIDDEN_STARTS = ("os.exec", "os.spawn")
FORBIDDEN_METHODS = {"extractall", "read_pickle", "to_pickle"}
RUNS = {f"subprocess.{name}" for name in ("run", "call", "check_call", "check_output")}
# Function (or method of any object) -> the keyword that must be there, and its value.
KEYWORDS: dict[str, tuple[str, bool]] = {
    "numpy.load": ("allow_pickle", False),
    "numpy.save": ("allow_pickle", False),
    "numpy.savez": ("allow_pickle", False),
    "torch.load": ("weights_only", True),
    "torch.hub.load_state_dict_from_url": ("weights_only", True),
    ".get_state_dict": ("weights_only", True),
}
# Loaders of plain data; any other `.load` and `.loads` may unpickle (gensim's does).
LOADERS = {
    "json.load", "json.loads", "librosa.load", *KEYWORDS,
    # safetensors and JSON
}  # fmt: skip


UNKNOWN = ast.Constant(None)


class Judged(NamedTuple):
    """A guarded use; ``problem`` is empty if it is as it should be."""

    line: int
    what: str
    problem: str


class Walk(ast.NodeVisitor):
    """Judges every guarded use of a module."""

    def __init__(self, tree: ast.Module) -> None:
        self.judged: list[Judged] = []
        self._names: dict[str, str] = {}
        self._values: dict[str, list[ast.expr]] = {}
        self._seen: set[ast.AST] = set()
        self._collect(tree)
        self.visit(tree)

    def _collect(self, tree: ast.Module) -> None:
        """What names stand for: modules, and the values that are given to variables."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    name = alias.name if alias.asname else alias.name.split(".")[0]
                    self._names[alias.asname or name] = name
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    self._names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
            elif isinstance(node, ast.arg):
                self._values.setdefault(node.arg, []).append(UNKNOWN)
            elif isinstance(node, ast.Assign) and len(node.targets) == 1:
                self._given(node.targets[0], node.value)
            elif isinstance(node, ast.AnnAssign | ast.NamedExpr):
                self._given(node.target, node.value or UNKNOWN)
        for node in ast.walk(tree):  # loops, `with ... as`, and whatever else gives a name a value
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                self._given(node, UNKNOWN)

    def _given(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name) and target not in self._seen:
            self._seen.add(target)
            self._values.setdefault(target.id, []).append(value)

    def _say(self, node: ast.AST, what: str, problem: str = "") -> None:
        self.judged.append(Judged(getattr(node, "lineno", 0), what, problem))

    def _dotted(self, node: ast.AST) -> str:
        """``subprocess.run`` for whatever the file calls it; empty for no plain name."""
        if isinstance(node, ast.Name):
            return self._names.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            base = self._dotted(node.value)
            return f"{base}.{node.attr}" if base else ""
        return ""

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._import(node, alias.name, "")

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            self._import(node, node.module or "", alias.name)

    def _import(self, node: ast.AST, module: str, name: str) -> None:
        full = f"{module}.{name}" if name else module
        if full in ALLOWED_NAMES:
            return
        if module.split(".")[0] in FORBIDDEN_MODULES:
            self._say(node, full, "is not imported here")
        elif name == "*":
            self._say(node, full, "hides what is imported")
        elif full in FORBIDDEN:
            self._say(node, full, "is not used here")

    def visit_Call(self, node: ast.Call) -> None:
        name, arguments = self._dotted(node.func), node.args
        if name in ("functools.partial", "partial") and arguments:
            name, arguments = self._dotted(arguments[0]), arguments[1:]
            self._seen.add(node.args[0])
        self._seen.add(node.func)
        if name == "hasattr":
            self._seen.update(arguments)
        keywords = {keyword.arg or "**": keyword.value for keyword in node.keywords}
        method = f".{node.func.attr}" if isinstance(node.func, ast.Attribute) else ""
        if name in RUNS:
            self._say(node, name, self._run_problem(arguments, keywords))
        elif rule := KEYWORDS.get(name) or KEYWORDS.get(method):
            self._say(node, name or method, _keyword_problem(keywords, *rule))
        elif method in (".load", ".loads") and name not in LOADERS:
            self._say(node, name or method, "" if self._is_yaml(node.func) else "may unpickle")
        elif method == ".extract":
            self._say(node, name or method, "unpacks")
        elif name == "ruamel.yaml.YAML" and (arguments or "typ" in keywords or "**" in keywords):
            self._say(node, name, "only the round-trip loader is safe and kept")
        else:
            self._judge_name(node.func, name)
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        name = self._dotted(node)
        if node not in self._seen:
            self._judge_name(node, name)
            if name in RUNS or name in KEYWORDS:
                self._say(node, name, "is not called where it is named")
            elif name in JUDGED and node.id in self._names:
                self._say(node, name, "a module handed on as a value")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        name = self._dotted(node)
        if node not in self._seen:
            self._judge_name(node, name)
            if name in RUNS or name in KEYWORDS:
                self._say(node, name, "is not called where it is named")
        if isinstance(node.value, ast.Name):
            self._seen.add(node.value)
        self.generic_visit(node)

    def _judge_name(self, node: ast.AST, name: str) -> None:
        method = node.attr if isinstance(node, ast.Attribute) else ""
        forbidden_module = name.split(".")[0] in FORBIDDEN_MODULES and name not in ALLOWED_NAMES
        if (
            name in FORBIDDEN
            or name.startswith(FORBIDDEN_STARTS)
            or method in FORBIDDEN_METHODS
            or (forbidden_module and name.split(".")[0] in self._names)
        ):
            self._say(node, name or method, "is not used here")

    def _run_problem(self, arguments: list[ast.expr], keywords: dict[str, ast.expr]) -> str:
        if "**" in keywords or any(isinstance(argument, ast.Starred) for argument in arguments):
            return "arguments that cannot be seen"
        if "shell" in keywords or "executable" in keywords:
            return "names a shell"
        command = arguments[0] if arguments else keywords.get("args")
        if command is None or not self._is_list(command):
            return "its command is not a list"
        limit = keywords.get("timeout")
        if limit is None or (isinstance(limit, ast.Constant) and limit.value is None):
            return "has no time limit"
        return ""

    def _is_list(self, node: ast.expr) -> bool:
        """Whether an expression is surely a list: written as one, or a name for nothing else."""
        if isinstance(node, ast.Name):
            values = self._values.get(node.id, [])
            return bool(values) and all(self._is_list(value) for value in values)
        if isinstance(node, ast.BinOp):
            return self._is_list(node.left) and self._is_list(node.right)
        # ffmpeg-python composes argument lists.
        composed = isinstance(node, ast.Call) and self._dotted(node.func) == "ffmpeg.compile"
        return isinstance(node, ast.List) or composed

    def _is_yaml(self, method: ast.expr) -> bool:
        """Whether a method is that of a variable that holds ruamel's loader and nothing else."""
        receiver = method.value if isinstance(method, ast.Attribute) else method
        values = self._values.get(receiver.id, []) if isinstance(receiver, ast.Name) else []
        return bool(values) and all(
            isinstance(value, ast.Call) and self._dotted(value.func) == "ruamel.yaml.YAML"
            for value in values
        )


def _keyword_problem(keywords: dict[str, ast.expr], key: str, wanted: bool) -> str:
    value = keywords.get(key)
    right = isinstance(value, ast.Constant) and value.value is wanted
    return "" if right else f"needs {key}={wanted}"


def judged(source: str) -> list[Judged]:
    """Every guarded use in a source text."""
    return Walk(ast.parse(source)).judged


def problems(source: str) -> list[str]:
    """Those that are not as they should be, each with its line."""
    return [f"{use.line}: {use.what}: {use.problem}" for use in judged(source) if use.problem]
