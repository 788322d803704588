"""Cut what names a network or data set that was left out, from Python, YAML and Markdown."""

import ast
import re
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise

Span = tuple[int, int]  # of characters
Node = ast.stmt | ast.expr | ast.alias


class Names:
    """Finds names that were left out; a longer name that stays, such as ``fashion_mnist``, hides a shorter one."""

    def __init__(self, left_out: Collection[str], kept: Collection[str] = ()) -> None:
        self.left_out = set(left_out)
        longest_first = sorted({*left_out, *kept}, key=lambda name: (-len(name), name)) or ["\0"]
        self._any = re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(map(re.escape, longest_first))})(?![A-Za-z0-9])")

    def found_in(self, text: str) -> set[str]:
        """The names left out that a text has, as words of their own or as parts of others: ``mnist_cnn``."""
        return {match[0] for match in self._any.finditer(text)} & self.left_out


class _Module:
    """A Python source with the places of its nodes."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.tree = ast.parse(source)
        lines = source.splitlines(keepends=True)
        self._starts = [0]
        for line in lines:
            self._starts.append(self._starts[-1] + len(line))
        self._lines = lines

    def position(self, line: int, column: int) -> int:
        return self._starts[line - 1] + len(self._lines[line - 1].encode()[:column].decode())

    def span(self, node: Node) -> Span:
        """Where a node stands; a function or class with its decorators."""
        first = min([node, *getattr(node, "decorator_list", [])], key=lambda one: one.lineno)
        start = self._starts[first.lineno - 1] if first is not node else self.position(node.lineno, node.col_offset)
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return start, self.position(node.end_lineno, node.end_col_offset)

    def with_comment(self, statement: ast.stmt) -> Span:
        """Where a statement stands, with the comment behind it."""
        start, end = self.span(statement)
        comment = re.compile(r"[ \t]*#.*").match(self.source, end)
        return start, comment.end() if comment else end

    def text(self, node: Node) -> str:
        return self.source[slice(*self.span(node))]


def _literal(node: ast.expr) -> list[ast.expr] | None:
    """The elements of a list, tuple, set or dict; those of a dict are its values."""
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return list(node.elts)
    return list(node.values) if isinstance(node, ast.Dict) else None


def _elements(module: _Module, node: ast.expr) -> list[Span]:
    """Where the elements of a literal stand, each with its key and the comma behind it."""
    starts: Sequence[ast.expr | None] = node.keys if isinstance(node, ast.Dict) else _literal(node) or []
    ends = _literal(node) or []
    spans = [(module.span(start or end)[0], module.span(end)[1]) for start, end in zip(starts, ends, strict=True)]
    if not spans:
        return []
    closing = module.span(node)[1] - 1 if module.source[module.span(node)[1] - 1] in ")]}" else module.span(node)[1]
    return [(start, following) for (start, _), (following, _) in pairwise([*spans, (closing, closing)])]


def _lists_of(statement: ast.stmt) -> Iterator[ast.expr]:
    """The literals whose elements can go one by one: what is assigned, or what a test is parametrised with."""
    if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value:
        values = [statement.value]
        if isinstance(statement.value, ast.BinOp):
            values = [statement.value.left, statement.value.right]
        yield from (value for value in values if _literal(value))
    for decorator in getattr(statement, "decorator_list", []):
        if isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Attribute):
            yield from (one for one in decorator.args[1:2] if decorator.func.attr == "parametrize" and _literal(one))


def _defined(statement: ast.stmt) -> set[str]:
    """The names that a statement at a module's top gives a meaning."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}
    return set()


def _used(statement: ast.AST) -> set[str]:
    """The names that a statement reads, with a test's fixtures."""
    names = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
    return names | {node.arg for node in ast.walk(statement) if isinstance(node, ast.arg)}


def cut_python(source: str, names: Names, gone: Collection[str] = ()) -> tuple[str, set[str]]:
    """Cut what names something left out: imports, elements of lists, and else whole functions and statements.

    Args:
        source: a module.
        names: what was left out.
        gone: names that other modules have lost; what uses them goes too.

    Returns:
        The source, and the names that it has lost.
    """
    module = _Module(source)
    lost: set[str] = {*gone}
    while True:
        cuts, dropped = _cuts(module, names, lost)
        if dropped <= lost:
            break
        lost |= dropped
    for (start, end), instead in sorted(cuts.items(), reverse=True):
        source = source[:start] + instead + source[end:]
    return source, lost - {*gone}


def _cuts(module: _Module, names: Names, lost: set[str]) -> tuple[dict[Span, str], set[str]]:
    """What to cut, with what stands there instead, and which names go with it, where the ``lost`` ones are gone."""
    cuts: dict[Span, str] = {}
    dropped: set[str] = set()
    for statement in module.tree.body:
        if isinstance(statement, ast.ImportFrom):
            bad = [one for one in statement.names if names.found_in(one.name) or one.name in lost]
            kept = [module.text(one) for one in statement.names if one not in bad]
            if bad:
                cuts[module.span(statement)] = f"from {statement.module} import {', '.join(kept)}" if kept else ""
            dropped |= {one.asname or one.name for one in bad}
            continue
        if isinstance(statement, ast.Expr):  # a docstring
            continue
        rest, inner = module.text(statement), []
        for literal in _lists_of(statement):
            spans, elements = _elements(module, literal), _literal(literal) or []
            doomed = [
                span
                for span, element in zip(spans, elements, strict=True)
                if names.found_in(module.source[slice(*span)]) or _used(element) & lost
            ]
            if doomed and len(doomed) == len(spans) and not isinstance(literal, ast.Dict):
                inner = [module.span(statement)]
                break
            inner += doomed
            for start, end in doomed:
                rest = rest.replace(module.source[start:end], "", 1)
        uses_lost = bool(_used(statement) & lost) and not inner
        if inner != [module.span(statement)] and not names.found_in(rest) and not uses_lost:
            cuts |= dict.fromkeys(inner, "")
            continue
        cuts[module.with_comment(statement)] = ""
        dropped |= _defined(statement)
    return cuts, dropped


def tests_in(source: str) -> list[str]:
    """The names of a module's tests."""
    return [
        one.name for one in ast.parse(source).body if isinstance(one, ast.FunctionDef) and one.name.startswith("test")
    ]


def cut_lines(text: str, names: Names) -> str:
    """Cut lines that name something left out, as in a YAML file of one entry a line."""
    return "".join(line for line in text.splitlines(keepends=True) if not names.found_in(line))


def without_links(text: str, names: Names) -> str:
    """Keep the words of links that lead to something left out; a link alone in brackets goes with them."""

    def unlinked(match: re.Match[str]) -> str:
        inner = re.sub(
            r"\[([^]]*)\]\(([^)]*)\)", lambda link: link[1] if names.found_in(link[2]) else link[0], match[0]
        )
        return "" if match[0].startswith(" (") and inner != match[0] else inner

    return re.sub(r" \(\[[^]]*\]\([^)]*\)\)|(?<!!)\[[^]]*\]\([^)]*\)", unlinked, text)


def cut_markdown(text: str, names: Names) -> str:
    """Cut the sentences, items, rows, commands and blocks of a page that name something left out."""
    text = without_links(text, names)
    parts = re.split(r"(^```.*?^```\n)", text, flags=re.MULTILINE | re.DOTALL)
    kept: list[str] = []
    for part in parts:
        if not part.startswith("```"):
            kept.append(_cut_prose(part, names))
        elif code := _cut_code(part, names):
            kept.append(code)
        else:  # with the sentence that leads to it
            kept.append(re.sub(r"(?:^|(?<=[.!?]) |(?<=\n))[^.!?\n]*:\n*$", "", kept.pop()) + "\n\n")
    page = re.sub(r"\n{3,}", "\n\n", "".join(kept))
    empty_section = re.compile(r"^(#+) [^\n]*\n\n(?=(#+) |\Z)", re.MULTILINE)

    def unless_it_has_parts(match: re.Match[str]) -> str:
        following = match[2]
        return match[0] if following and len(following) > len(match[1]) else ""

    while (shorter := empty_section.sub(unless_it_has_parts, page)) != page:
        page = shorter
    return page.rstrip("\n") + "\n"


def _cut_code(block: str, names: Names) -> str:
    opening, *lines, closing = block.splitlines(keepends=True)
    if not opening.startswith("```bash"):
        return "" if names.found_in(block) else block
    kept = [line for line in lines if not names.found_in(line)]
    return "".join([opening, *kept, closing]) if any(line.strip() for line in kept) else ""


def _cut_prose(text: str, names: Names) -> str:
    lines = []
    for line in text.splitlines(keepends=True):
        if not names.found_in(line):
            lines.append(line)
        elif not re.match(r"\s*([-*|#]|\d+\.) ?", line):
            sentences = re.split(r"(?<=[.!?]) (?=[A-Z`*\[])", line.rstrip("\n"))
            rest = " ".join(sentence for sentence in sentences if not names.found_in(sentence))
            lines += [f"{rest}\n"] if rest else []
    return "".join(lines)
