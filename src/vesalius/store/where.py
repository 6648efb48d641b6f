# SPDX-License-Identifier: Apache-2.0
"""Which rows may answer: a small, closed language of SQL conditions, read into a tree.

```
condition  = either { OR either }             either = term { AND term }
term       = NOT term | ( condition ) | column [test]
test       = (= | != | <> | < | <= | > | >=) literal | [NOT] IN ( literal, … )
           | [NOT] LIKE 'pattern' | [NOT] BETWEEN literal AND literal | IS [NOT] NULL
literal    = 'text' | number | TRUE | FALSE
```
A column alone is a boolean one. Nothing else is understood: no function, no subquery, no comment,
no second statement. Engines get the tree, or SQL with the literals as parameters (`sql`); text that
a user typed never becomes a part of a statement. As in SQL, a test of a missing value is neither
true nor false, and such a row does not answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from vesalius.errors import UsageError, did_you_mean
from vesalius.store.rows import is_text

Literal: TypeAlias = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Compare:
    """A column compared with a literal; `op` is one of `= != < <= > >=`."""

    column: str
    op: str
    value: Literal


@dataclass(frozen=True, slots=True)
class Among:
    """A column whose value is one of several."""

    column: str
    values: tuple[Literal, ...]


@dataclass(frozen=True, slots=True)
class Like:
    """A text that fits a pattern: `%` is any text, `_` any character, a backslash escapes."""

    column: str
    pattern: str


@dataclass(frozen=True, slots=True)
class Missing:
    """A column without a value."""

    column: str


@dataclass(frozen=True, slots=True)
class Not:
    """What does not hold."""

    part: Condition


@dataclass(frozen=True, slots=True)
class All:
    """Parts that hold together."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Any:
    """Parts of which one holds."""

    parts: tuple[Condition, ...]


Condition: TypeAlias = Compare | Among | Like | Missing | Not | All | Any

_LONGEST = 10_000  # characters of a condition
_DEEPEST = 50  # parentheses and NOTs within each other
_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')"
    r"|(?P<quoted>\"[^\"]*\"|`[^`]*`)"
    r"|(?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))"
    r"|(?P<word>[^\W\d]\w*)"
    r"|(?P<op><=|>=|<>|!=|=|<|>)"
    r"|(?P<mark>[(),])"
    r"|(?P<other>\S))"
)
_WORDS = frozenset(["AND", "BETWEEN", "FALSE", "IN", "IS", "LIKE", "NOT", "NULL", "OR", "TRUE"])
_WRITTEN = {"text": "a text in single quotes, as 'MR'", "integer": "a number", "float": "a number",
            "boolean": "TRUE or FALSE"}  # fmt: skip


def parse(where: str, columns: Mapping[str, str]) -> Condition | None:
    """Return the tree of a condition over columns -> `text`, `integer`, `float`, `boolean`.

    None is the condition of all rows, which an empty text is.

    Raises:
        UsageError: what is not understood, where, and the column that may have been meant.
    """
    if len(where) > _LONGEST:
        raise UsageError(
            f"the condition has {len(where)} characters; at most {_LONGEST} are read: shorten it"
        )
    if not is_text(where):
        raise UsageError(
            "the condition holds a NUL or half a character: remove them; expected is plain text"
        )
    return _Reader(where, columns).whole() if where.strip() else None


class _Reader:
    """Reads one condition by recursive descent."""

    def __init__(self, where: str, columns: Mapping[str, str]) -> None:
        self._where = where
        self._columns = columns
        self._tokens = [
            (str(match.lastgroup), match.group(str(match.lastgroup)), match.start(match.lastgroup))
            for match in _TOKEN.finditer(where)
            if match.lastgroup
        ]
        self._at = 0
        self._depth = 0

    def whole(self) -> Condition:
        found = self._condition()
        if self._at < len(self._tokens):
            self._refuse("AND, OR or the end")
        return found

    def _condition(self) -> Condition:
        parts = [self._either()]
        while self._word("OR"):
            parts.append(self._either())
        return parts[0] if len(parts) == 1 else Any(tuple(parts))

    def _either(self) -> Condition:
        parts = [self._term()]
        while self._word("AND"):
            parts.append(self._term())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _term(self) -> Condition:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise UsageError(
                f"the condition is nested more than {_DEEPEST} times: write it in a flatter way"
            )
        try:
            if self._word("NOT"):
                return Not(self._term())
            if self._mark("("):
                found = self._condition()
                self._need_mark(")")
                return found
            return self._test(self._column())
        finally:
            self._depth -= 1

    def _column(self) -> str:
        kind, text, _ = self._peek()
        name = text[1:-1] if kind == "quoted" else text
        if kind not in ("word", "quoted") or (kind == "word" and text.upper() in _WORDS):
            self._refuse("the name of a column")
        if name not in self._columns:
            if kind == "word" and self._peek(1)[1] == "(":
                raise UsageError(
                    f"'{name}(' in the condition: functions are not understood; compare columns "
                    "with literals"
                )
            hint = did_you_mean(name, self._columns)
            if kind == "quoted" and not hint:
                hint = f" A text is written in single quotes: '{name}'."
            raise UsageError(
                f"there is no column '{name}'.{hint} Columns are {', '.join(sorted(self._columns))}"
            )
        self._at += 1
        return name

    def _test(self, column: str) -> Condition:
        kind, op, _ = self._peek()
        if kind == "op":
            self._at += 1
            value = self._literal(column)
            op = "!=" if op == "<>" else op
            if self._columns[column] == "boolean" and op not in ("=", "!="):
                raise UsageError(f"'{column}' is true or false: compare it by = or != alone")
            return Compare(column, op, value)
        if self._word("IS"):
            turned = self._word("NOT")
            if not self._word("NULL"):
                self._refuse("NULL")
            return Not(Missing(column)) if turned else Missing(column)
        turned = self._word("NOT")
        if self._word("IN"):
            found: Condition = Among(column, self._literals(column))
        elif self._word("LIKE"):
            if self._columns[column] != "text":
                raise UsageError(f"'{column}' is no text: LIKE does not apply to it")
            found = Like(column, self._pattern(column))
        elif self._word("BETWEEN"):
            low = self._literal(column)
            if not self._word("AND"):
                self._refuse("AND between the two ends of BETWEEN")
            found = All((Compare(column, ">=", low), Compare(column, "<=", self._literal(column))))
        elif not turned and self._columns[column] == "boolean":
            return Compare(column, "=", True)
        else:
            self._refuse("a comparison, IN, LIKE, BETWEEN or IS NULL")
        return Not(found) if turned else found

    def _pattern(self, column: str) -> str:
        pattern = str(self._literal(column))
        if re.fullmatch(r"(?s)(?:[^\\]|\\.)*\\", pattern):
            raise UsageError(
                f"the pattern {pattern!r} ends in a backslash, which escapes nothing: write two"
            )
        return pattern

    def _literals(self, column: str) -> tuple[Literal, ...]:
        self._need_mark("(")
        values = [self._literal(column)]
        while self._mark(","):
            values.append(self._literal(column))
        self._need_mark(")")
        return tuple(values)

    def _literal(self, column: str) -> Literal:
        kind, text, _ = self._peek()
        wanted = self._columns[column]
        upper = text.upper()
        value: Literal | None = None
        if kind == "text" and wanted == "text":
            value = text[1:-1].replace("''", "'")
        elif kind == "number" and wanted in ("integer", "float"):
            value = int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)
        elif kind == "word" and upper in ("TRUE", "FALSE") and wanted == "boolean":
            value = upper == "TRUE"
        if value is None or value in (float("inf"), float("-inf")):
            hint = "; a missing value is asked for by IS NULL" if upper == "NULL" else ""
            self._refuse(f"{_WRITTEN[wanted]} (column '{column}' is of type {wanted}){hint}")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            value = float(value)
        self._at += 1
        return value

    def _peek(self, ahead: int = 0) -> tuple[str, str, int]:
        at = self._at + ahead
        return self._tokens[at] if at < len(self._tokens) else ("end", "", len(self._where))

    def _word(self, word: str) -> bool:
        kind, text, _ = self._peek()
        found = kind == "word" and text.upper() == word
        self._at += found
        return found

    def _mark(self, mark: str) -> bool:
        found = self._peek()[:2] == ("mark", mark)
        self._at += found
        return found

    def _need_mark(self, mark: str) -> None:
        if not self._mark(mark):
            self._refuse(f"'{mark}'")

    def _refuse(self, wanted: str) -> NoReturn:
        kind, text, place = self._peek()
        came = "its end" if kind == "end" else f"'{text}'"
        raise UsageError(
            f"the condition is not understood at {came} (character {place + 1} of "
            f"{self._where!r}): expected {wanted}"
        )
